"""What a tenant downloads of what its jobs made: its own workflow, by every door, whole and in parts, from the disk and from ComfyUI."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from policy.principal import TenantId
from proxy.files import tenant_files
from proxy.http.body_memory import BodyPlace, BodyRoom
from tests.policy.media.files import OWN, REAL, SALTED, own
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import submitted
from tests.proxy.v2.assets.sdk import Answer, Client, Standing, hash_of, standing
from tests.proxy.v2.following import finished

SAVING = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/con"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def long_animation(chunks: int, *, text: str = SALTED) -> bytes:
    """A PNG whose workflow stands behind all of its data, as ComfyUI's animations have it."""
    data = [chunk(b"IDAT", bytes([number % 251]) * 65_536) for number in range(chunks)]
    return b"".join((REAL["saved.png"][:33], *data, chunk(b"comf", b"prompt\0" + text.encode()), chunk(b"IEND", b"")))


def put(world: Standing, name: str, data: bytes, *, folder: str = "output", tenant: str = "alice") -> str:
    """Where it is asked for."""
    assert world.directory is not None
    place = world.directory / folder / "tenants" / tenant
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(data)
    return f"/view?filename={name}&type={folder}"


async def get(client: Client, path: str, method: str = "GET", **headers: str) -> Answer:
    return await client.ask(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(params=["seen", "unseen"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    async with standing(tmp_path, is_seen=request.param == "seen") as found:
        yield found


async def test_every_format_comes_with_ones_own_workflow(world: Standing) -> None:
    for name, data in REAL.items():
        path, expected = put(world, name, data), own(data)
        first, whole = await get(world.alice, path), await get(world.alice, path)
        assert first.status == whole.status == 200
        assert first.body == whole.body == expected, name
        assert whole.headers["Content-Length"] == str(len(data))
        part = await get(world.alice, path, Range="bytes=100-2999")
        assert (part.status, part.body) == (206, expected[100:3000]), name
        assert part.headers["Content-Range"] == f"bytes 100-2999/{len(data)}"
        assert part.headers["ETag"] == whole.headers["ETag"]


async def test_a_part_that_is_asked_for_first(world: Standing) -> None:
    for name, data in REAL.items():
        path = put(world, name, data)
        last = await get(world.alice, path, Range=f"bytes=-{len(data) - 20}")
        assert (last.status, last.body) == (206, own(data)[20:]), name


async def test_what_was_uploaded_comes_as_it_was(world: Standing) -> None:
    for name, data in REAL.items():
        plain = await get(world.alice, put(world, name, data, folder="input"))
        assert plain.body == data
        assert not plain.headers["ETag"].endswith('-own"')
    asset = await world.alice.stored(REAL["saved.png"])
    assert (await world.alice.content(asset["id"])).body == REAL["saved.png"]
    assert asset["hash"] == hash_of(REAL["saved.png"])


async def test_who_has_the_file_as_comfyui_has_it_is_not_told_that_it_is_the_same(world: Standing) -> None:
    path = put(world, "a.png", REAL["saved.png"])
    own_etag = (await get(world.alice, path)).headers["ETag"]
    etag = own_etag.replace("-own", "")
    modified = (await get(world.alice, path)).headers["Last-Modified"]
    assert own_etag != etag

    async def status(**headers: str) -> int:
        return (await get(world.alice, path, **headers)).status

    assert await status(If_None_Match=own_etag) == 304
    assert await status(If_None_Match=f'"x", W/{own_etag}') == 304
    assert await status(If_None_Match="*") == 304
    assert await status(If_None_Match=etag) == 200
    assert await status(If_Modified_Since=modified) == 200
    assert await status(If_Match=own_etag) == 200
    assert await status(If_Match="*") == 200
    assert await status(If_Match=etag) == 412
    assert await status(Range="bytes=0-9", If_Range=own_etag) == 206
    assert await status(Range="bytes=0-9", If_Range=etag) == 200
    assert await status(Range="bytes=0-9", If_Range=modified) == 200
    assert await status(Range="bytes=999999-") == 416
    head = await get(world.alice, path, "HEAD")
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", own_etag)
    assert (await get(world.alice, path)).body == own(REAL["saved.png"])


async def test_a_file_that_was_overwritten_is_looked_at_again(world: Standing) -> None:
    path = put(world, "a.png", REAL["saved.png"])
    assert (await get(world.alice, path)).body == own(REAL["saved.png"])
    put(world, "a.png", REAL["deep.png"])
    part = await get(world.alice, path, Range="bytes=30-")
    assert part.body == own(REAL["deep.png"])[30:]
    assert (await get(world.alice, path)).body == own(REAL["deep.png"])


@pytest.mark.parametrize("text", [SALTED, SALTED.replace("alice/x", "alice/" + "x" * 900_000)], ids=["short", "long"])
async def test_a_large_file_streams_with_a_workflow_at_its_end(world: Standing, text: str) -> None:
    data = long_animation(200, text=text)
    path = put(world, "long.png", data)
    # ComfyUI would be asked for more places than it is worth: the whole is an answer, too.
    part = await get(world.alice, path, Range="bytes=100-199")
    assert (part.status, part.body) in ((206, own(data)[100:200]), (200, own(data)))
    assert world.comfy is not None
    before = len(world.comfy.received)
    await get(world.alice, path, Range="bytes=5-6")
    assert len(world.comfy.received) <= before + 2, "it is not looked for again"
    whole = await get(world.alice, path, Range="bytes=0-")
    assert whole.status == 206
    assert whole.body == own(data)
    assert b"comfygate" not in whole.body
    assert len(whole.body) == len(data)
    known = await get(world.alice, path, Range=f"bytes={len(data) - 150}-")
    assert (known.status, known.body) == (206, own(data)[-150:])


async def test_a_short_animation_is_read_in_places(world: Standing) -> None:
    data = long_animation(20)
    part = await get(world.alice, put(world, "short.png", data), Range=f"bytes={len(data) - 150}-")
    assert (part.status, part.body) == (206, own(data)[-150:])


async def test_a_neighbour_gets_nothing_and_its_files_are_read_as_its_own(world: Standing) -> None:
    path = put(world, "a.png", REAL["saved.png"])
    assert (await get(world.mallory, path)).status == 404
    hers = put(world, "b.png", REAL["saved.png"], tenant="mallory")
    # Salts go from every workflow; another tenant's folder is no mark of hers.
    assert (await get(world.mallory, hers)).body.count(b"tenants/alice/") > 5


async def test_all_doors_give_the_same_bytes_and_tell_their_hash(world: Standing) -> None:
    made = await finished(world.gate, await submitted(world.gate, SAVING))
    assert len(made["outputs"]) == 2
    for output in made["outputs"]:
        content = await world.alice.content(output["id"])
        assert (output["hash"], output["size_bytes"]) == (hash_of(content.body), len(content.body))
        assert b"comfygate" not in content.body
        assert b"tenants/" not in content.body
        assert _prompt(content.body) == SAVING
        again = await world.alice.upload(content.body)
        assert (again.json()["hash"], again.status // 100) == (output["hash"], 2)
        assert (await world.alice.content(again.json()["id"])).body == content.body
    name = world.files(folder="output")[0]
    shown = await get(world.alice, f"/api/view?filename={name.name}&subfolder=sub")
    assert shown.body == (await world.alice.content(made["outputs"][0]["id"])).body
    assert b"comfygate" in name.read_bytes()


def _prompt(data: bytes) -> Any:
    start = data.index(b"tEXtprompt\0") + 11
    size = int.from_bytes(data[start - 15 : start - 11], "big") - 7
    return json.loads(data[start : start + size])


async def test_what_is_no_media_file_passes(world: Standing) -> None:
    for name, data in (
        ("a.txt", SALTED.encode()),
        ("empty.png", b""),
        ("b.png", REAL["saved.png"][:50]),
        ("c.gif", b"GIF89a" + bytes(200_000)),
    ):
        path = put(world, name, data)
        assert (await get(world.alice, path)).body == data
    assert OWN  # what none of them becomes


class Room(BodyRoom):
    """Tells when it is empty again."""

    def __init__(self, max_bytes: int, max_tenant_bytes: int) -> None:
        super().__init__(max_bytes, max_tenant_bytes)
        self.is_empty = asyncio.Event()

    def give_back(self, tenant: TenantId, amount: int) -> None:
        super().give_back(tenant, amount)
        if not self.held_bytes:
            self.is_empty.set()


async def test_large_texts_of_one_tenant_have_a_bound_in_memory(
    world: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has no room in time is told so, before a byte was sent; from ComfyUI its answer ends."""
    files = world.gate.gate.dependencies.tenant_files
    monkeypatch.setattr(tenant_files, "_ROOM_WAIT_S", 0.0)
    room = Room(100_000, 100_000)
    monkeypatch.setattr(files, "_room", room)
    path = put(world, "large.png", long_animation(1, text=SALTED.replace("alice/x", "alice/" + "x" * 200_000)))
    with BodyPlace(room, TenantId("alice"), 0.0) as others:
        await others.hold(50_000)
        if world.gate.gate.dependencies.storage.disk is not None:
            assert (await get(world.alice, path)).status == 429
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await get(world.alice, path)
    room.is_empty.clear()
    assert (await get(world.alice, path)).status == 200
    async with asyncio.timeout(GUARD_S):
        await room.is_empty.wait()

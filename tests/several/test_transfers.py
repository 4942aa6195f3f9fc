"""What a job reads is brought to the ComfyUI that is to run it: whole, once, and of its own tenant."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import FormData
from PIL import Image

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.needs import Needs
from policy.principal import TenantId
from proxy.files import transfers as module
from proxy.files.transfers import Transfers
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import StoredState
from proxy.jobs.registry import row_of
from tests.several.making import preview_at, run_at, saving
from tests.several.world import FIRST, SECOND, SeveralWorld, several
from tests.v2.world import painted

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
INPUT = UpstreamPath("tenants/alice/deep/photo (1) é.png")
THIRD = "gpu-3"
ORANGE = painted((255, 128, 0), (8, 8))


@pytest.fixture(params=[True, False], ids=["seen", "unseen"])
async def three(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SeveralWorld]:
    async with several(tmp_path, (FIRST, SECOND, THIRD), has_directories=request.param) as world:
        yield world


def transfers_of(world: SeveralWorld) -> Transfers:
    found = world.gate.gate.dependencies.transfers
    assert found is not None
    return found


def place(world: SeveralWorld, name: str, folder: Folder, path: str) -> Path:
    return Path(world.comfyuis[name].folders.base, folder.value, path)


def put(world: SeveralWorld, name: str, folder: Folder, path: str, data: bytes, at_ns: int | None = None) -> Path:
    file = place(world, name, folder, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    if at_ns is not None:
        os.utime(file, ns=(at_ns, at_ns))
    return file


async def bring(world: SeveralWorld, name: str, *files: tuple[Folder, str], tenant: TenantId = ALICE) -> str:
    """Why the job is refused, "" where it is not."""
    needs = Needs(files=tuple((folder, UpstreamPath(path)) for folder, path in files))
    reply = await transfers_of(world).bring(tenant, needs, name)
    return "" if reply is None else str(reply.value["error"]["message"])


def uploads_to(world: SeveralWorld, name: str) -> int:
    return sum(each.raw_path.startswith("/upload") for each in world.comfyuis[name].received)


async def test_an_upload_comes_whole_and_once(three: SeveralWorld) -> None:
    data = os.urandom(3 * module.PIECE_BYTES + 17)
    put(three, FIRST, Folder.INPUT, INPUT, data)
    for _ in range(2):
        assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
        assert place(three, SECOND, Folder.INPUT, INPUT).read_bytes() == data
    assert (uploads_to(three, SECOND), uploads_to(three, FIRST)) == (1, 0)
    assert await bring(three, FIRST, (Folder.INPUT, INPUT)) == "", "it has its own"


async def test_two_jobs_share_one_transfer(three: SeveralWorld) -> None:
    put(three, FIRST, Folder.INPUT, INPUT, b"x" * 1000)
    told = await asyncio.gather(*(bring(three, SECOND, (Folder.INPUT, INPUT)) for _ in range(5)))
    assert (told, uploads_to(three, SECOND)) == ([""] * 5, 1)


async def test_the_newest_form_comes_and_what_was_lost_comes_again(three: SeveralWorld) -> None:
    put(three, FIRST, Folder.INPUT, INPUT, b"old", at_ns=10**18)
    await bring(three, SECOND, (Folder.INPUT, INPUT))
    for data in (b"new", b"another size"):
        put(three, FIRST, Folder.INPUT, INPUT, data, at_ns=2 * 10**18)
        assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
        assert place(three, SECOND, Folder.INPUT, INPUT).read_bytes() == data
    place(three, SECOND, Folder.INPUT, INPUT).unlink()
    assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
    assert place(three, SECOND, Folder.INPUT, INPUT).read_bytes() == b"another size"


async def test_a_gate_that_was_started_anew_leaves_what_is_there(three: SeveralWorld) -> None:
    """A job may be reading it."""
    put(three, FIRST, Folder.INPUT, INPUT, b"same")
    copy = put(three, SECOND, Folder.INPUT, INPUT, b"same", at_ns=10**18)
    assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
    assert copy.stat().st_mtime_ns == 10**18
    put(three, FIRST, Folder.INPUT, INPUT, b"diff", at_ns=3 * 10**18)
    transfers_of(three).brought.clear()
    assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
    assert copy.read_bytes() == b"diff"


@pytest.mark.parametrize("target", [FIRST, THIRD])
async def test_what_another_one_made_is_brought_from_there(three: SeveralWorld, target: str) -> None:
    path = f"tenants/alice/@{SECOND}/x.png"
    put(three, SECOND, Folder.OUTPUT, path, b"made")
    assert await bring(three, SECOND, (Folder.OUTPUT, path)) == ""
    assert await bring(three, target, (Folder.OUTPUT, path)) == ""
    assert place(three, target, Folder.OUTPUT, path).read_bytes() == b"made"
    assert [uploads_to(three, name) for name in (FIRST, SECOND, THIRD)].count(1) == 1


async def test_a_preview_is_brought_and_overwrites_nobodys(three: SeveralWorld) -> None:
    name = await preview_at(three, SECOND, "alice")
    assert "none of this tenant" in await bring(three, FIRST, (Folder.TEMP, name), tenant=MALLORY)
    assert not place(three, FIRST, Folder.TEMP, name).exists()
    other = put(three, THIRD, Folder.TEMP, name, b"a neighbour's")
    assert "another file" in await bring(three, THIRD, (Folder.TEMP, name))
    assert other.read_bytes() == b"a neighbour's"
    same_size = len(place(three, SECOND, Folder.TEMP, name).read_bytes())
    other.write_bytes(b"n" * same_size)
    assert "another file" in await bring(three, THIRD, (Folder.TEMP, name))
    assert other.read_bytes() == b"n" * same_size
    for _ in range(2):
        assert await bring(three, FIRST, (Folder.TEMP, name)) == ""
    assert place(three, FIRST, Folder.TEMP, name).read_bytes() == place(three, SECOND, Folder.TEMP, name).read_bytes()


async def test_a_preview_that_another_run_has_overwritten_is_not_brought(three: SeveralWorld) -> None:
    name = await preview_at(three, SECOND, "alice")
    made = place(three, SECOND, Folder.TEMP, name)
    job = three.gate.gate.dependencies.registry.temp_files.made_by(name)
    assert isinstance(job, Job)
    job.state, job.ended_at_s = JobState.ENDED, made.stat().st_mtime
    assert await bring(three, FIRST, (Folder.TEMP, name)) == ""
    put(three, SECOND, Folder.TEMP, name, ORANGE, at_ns=made.stat().st_mtime_ns + 10**9)
    assert "none of this tenant" in await bring(three, THIRD, (Folder.TEMP, name))
    assert not place(three, THIRD, Folder.TEMP, name).exists()


async def test_an_output_among_everybodys_that_nobody_can_guess_is_brought(three: SeveralWorld) -> None:
    registry, name = three.gate.gate.dependencies.registry, f"{uuid.uuid4()}.png"
    put(three, SECOND, Folder.OUTPUT, name, ORANGE)
    job = registry.claim(ALICE, None)
    job.comfyui = SECOND
    registry.add_temp_files(job.prompt_id, (name,))
    assert await bring(three, THIRD, (Folder.OUTPUT, name)) == ""
    assert place(three, THIRD, Folder.OUTPUT, name).read_bytes() == ORANGE
    assert "none of this tenant" in await bring(three, FIRST, (Folder.OUTPUT, name), tenant=MALLORY)


async def test_masks_keep_no_job_waiting(three: SeveralWorld) -> None:
    transfers, path = transfers_of(three), UpstreamPath(f"tenants/alice/@{SECOND}/x.png")
    put(three, SECOND, Folder.OUTPUT, path, ORANGE)
    for _ in range(module.MAX_AT_ONCE):
        await transfers._places.acquire()
    mask = asyncio.create_task(transfers.bring_to_first(ALICE, Folder.OUTPUT, path))
    assert await bring(three, THIRD, (Folder.OUTPUT, path)) == ""
    assert not mask.done()
    for _ in range(module.MAX_AT_ONCE):
        transfers._places.release()
    await mask
    assert place(three, FIRST, Folder.OUTPUT, path).read_bytes() == ORANGE


async def test_a_tenants_masks_keep_no_neighbours_waiting(three: SeveralWorld) -> None:
    transfers, path = transfers_of(three), UpstreamPath(f"tenants/alice/@{SECOND}/x.png")
    put(three, SECOND, Folder.OUTPUT, path, ORANGE)
    async with transfers._masks.of(MALLORY):
        await transfers.bring_to_first(ALICE, Folder.OUTPUT, path)
        waiting = asyncio.create_task(
            transfers.bring_to_first(MALLORY, Folder.OUTPUT, UpstreamPath(f"tenants/mallory/@{SECOND}/x.png"))
        )
        await transfers.bring_to_first(ALICE, Folder.OUTPUT, path)
        assert not waiting.done()
    await waiting


async def test_what_a_job_showed_elsewhere_is_not_read_where_it_runs(three: SeveralWorld) -> None:
    name = await preview_at(three, SECOND, "alice")
    put(three, THIRD, Folder.TEMP, name, ORANGE)
    registry, preview = three.gate.gate.dependencies.registry, f"/view?filename={name}&type=temp"
    job = registry.temp_files.made_by(name)
    assert isinstance(job, Job)
    assert await three.gate.status("GET", preview, "alice") == 200
    row = row_of(job, comfyui=SECOND, gate="", lease_until_s=0.0, attempts="[]")._replace(state=StoredState.RUNNING)
    registry.apply(row)
    assert await three.gate.status("GET", preview, "alice") == 200, "it stays where it is"
    registry.apply(row._replace(comfyui=THIRD))
    assert await three.gate.status("GET", preview, "alice") == 404
    assert "none of this tenant" in await bring(three, FIRST, (Folder.TEMP, name))


async def test_a_shared_input_is_each_ones_own(three: SeveralWorld) -> None:
    put(three, FIRST, Folder.INPUT, "example.png", b"of the first")
    assert await bring(three, SECOND, (Folder.INPUT, "example.png")) == ""
    assert place(three, SECOND, Folder.INPUT, "example.png").read_bytes() == b"of the first"
    put(three, SECOND, Folder.INPUT, "example.png", b"its operator's")
    assert await bring(three, SECOND, (Folder.INPUT, "example.png")) == ""
    assert place(three, SECOND, Folder.INPUT, "example.png").read_bytes() == b"its operator's"


async def test_what_is_gone_is_left_to_comfyui_and_no_old_copy_is_read(three: SeveralWorld) -> None:
    assert await bring(three, SECOND, (Folder.INPUT, INPUT)) == ""
    file = put(three, FIRST, Folder.INPUT, INPUT, b"x")
    await bring(three, SECOND, (Folder.INPUT, INPUT))
    file.unlink()
    told = await bring(three, SECOND, (Folder.INPUT, INPUT))
    assert told == "The file deep/photo (1) é.png is gone."


async def test_one_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    async with several(tmp_path, has_directories=False) as world:
        put(world, FIRST, Folder.INPUT, INPUT, b"x")
        put(world, SECOND, Folder.OUTPUT, f"tenants/alice/@{SECOND}/x.png", b"x")
        await world.stop(SECOND)
        for name, file in [
            (SECOND, (Folder.INPUT, INPUT)),
            (FIRST, (Folder.OUTPUT, f"tenants/alice/@{SECOND}/x.png")),
        ]:
            with pytest.raises(UpstreamUnavailable, match=SECOND):
                await bring(world, name, file)


async def test_nothing_is_sent_where_folders_are_shared(tmp_path: Path) -> None:
    async with several(tmp_path, is_shared=True) as world:
        put(world, FIRST, Folder.INPUT, INPUT, b"x")
        put(world, FIRST, Folder.OUTPUT, f"tenants/alice/@{SECOND}/x.png", b"x")
        for name in (FIRST, SECOND):
            files = ((Folder.INPUT, INPUT), (Folder.OUTPUT, f"tenants/alice/@{SECOND}/x.png"))
            assert await bring(world, name, *files) == ""
        assert not [each for comfy in world.comfyuis.values() for each in comfy.received if "view" in each.raw_path]
        assert (uploads_to(world, FIRST), uploads_to(world, SECOND)) == (0, 0)


async def test_what_is_remembered_is_bounded(three: SeveralWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.files.brought.MAX_REMEMBERED", 2)
    for number in range(4):
        put(three, FIRST, Folder.INPUT, f"tenants/alice/{number}.png", b"x")
        await bring(three, SECOND, (Folder.INPUT, f"tenants/alice/{number}.png"))
    assert len(transfers_of(three).brought._stamps) == len(transfers_of(three).brought._sizes) == 2


async def test_what_comfyui_does_not_take_refuses_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standin.server.MAX_BODY_BYTES", 10_000)
    async with several(tmp_path) as world:
        put(world, FIRST, Folder.INPUT, INPUT, b"x" * 20_000)
        assert "--max-upload-size" in await bring(world, SECOND, (Folder.INPUT, INPUT))
        assert not place(world, SECOND, Folder.INPUT, INPUT).exists()


async def test_of_a_file_that_changes_meanwhile_nothing_is_stored(
    two: SeveralWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, find = put(two, FIRST, Folder.INPUT, INPUT, b"x" * 1000), module._find_on_disk

    def cut(root: Path, path: UpstreamPath) -> object:
        found = find(root, path)
        file.write_bytes(b"x")
        return found

    monkeypatch.setattr(module, "_find_on_disk", cut)
    assert "changed" in await bring(two, SECOND, (Folder.INPUT, INPUT))
    assert not place(two, SECOND, Folder.INPUT, INPUT).exists()


def mask_of(original: dict[str, str]) -> FormData:
    form = FormData()
    form.add_field("image", ORANGE, filename="mask.png", content_type="image/png")
    form.add_field("original_ref", json.dumps(original))
    return form


async def test_a_mask_is_put_on_what_another_one_made(three: SeveralWorld) -> None:
    """Masks are made by the first."""
    [made] = await run_at(three, SECOND, saving(f"tenants/alice/@{SECOND}/x", 0xFF0000))
    preview = await preview_at(three, SECOND, "alice", 0x00FF00)
    for original, color in (
        ({"filename": made["filename"], "subfolder": f"@{SECOND}", "type": "output"}, (255, 0, 0)),
        ({"filename": preview, "subfolder": "", "type": "temp"}, (0, 255, 0)),
    ):
        answer = await three.gate.json("POST", "/upload/mask", "alice", data=mask_of(original))
        masked = place(three, FIRST, Folder.INPUT, f"tenants/alice/{answer['name']}")
        assert Image.open(masked).convert("RGB").getpixel((1, 1)) == color
        masked.unlink()
        await three.gate.status("POST", "/upload/mask", "mallory", data=mask_of(original))
        assert not place(three, FIRST, Folder.INPUT, "tenants/mallory/mask.png").exists()

"""Many uploads at once pass the storage quota no more than one after the other."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policy.principal import TenantId
from tests.contract.driver import images_of, previewing, slow, unique
from tests.harness import AUDIT_FILE, Running
from tests.matrix.people import NUMBERS
from tests.matrix.world import REAL_BASE, World, open_world
from tests.proxy.upstreams import GUARD_S

QUOTA = 3_000_000
PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0" * 1_000_000


@pytest.fixture
async def gate(tmp_path: Path, visible: str) -> AsyncIterator[Running]:
    """mallory has room for QUOTA bytes, whatever a real ComfyUI keeps of her from earlier tests."""
    base = (REAL_BASE if visible else None) or tmp_path / "comfyui"
    upstream, more = f'directory = "{base.as_posix()}"', f"\n[limits.small]\nstorage = {QUOTA}\n"
    async with open_world(tmp_path, real_url=visible, upstream_more=upstream, more=more) as world:
        gate = world.running
        storage = gate.gate.dependencies.storage
        assert storage.disk is not None
        gate.extra["world"] = world
        gate.extra["shade"] = uuid.uuid4().int & 0x0707F8  # else a real ComfyUI may have it in its cache
        gate.extra["stem"] = unique("quota")
        gate.extra["folder"] = base / "input/tenants/mallory"
        gate.extra["used"] = await storage._used_bytes(storage.disk, TenantId("mallory"))
        await set_quota(gate, QUOTA)
        yield gate


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


async def upload(gate: Running, number: int, *, is_chunked: bool) -> int:
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{gate.extra["stem"]}-{number}.png"\r\n\r\n'
    data = head.encode() + PICTURE + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return await gate.status(
        "POST", "/upload/image", "mallory", data=pieces(data) if is_chunked else data, headers=headers
    )


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_uploads_at_once_share_the_room(gate: Running, is_chunked: bool) -> None:
    told = await asyncio.gather(*(upload(gate, number, is_chunked=is_chunked) for number in range(10)))
    assert set(told) == {200, 507}
    files = gate.extra["folder"].glob(f"{gate.extra['stem']}-*")
    assert sum(file.stat().st_size for file in files) <= QUOTA


async def test_what_was_held_is_given_back(gate: Running) -> None:
    for number in range(2):
        assert await upload(gate, number, is_chunked=True) == 200
    assert not +gate.gate.dependencies.storage._held


async def test_previews_that_are_remembered_no_more_leave_no_room_beyond_the_quota(
    gate: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their jobs are deleted, so nobody sees them; what is too much to be remembered is deleted with them."""
    monkeypatch.setattr("proxy.jobs.temp_files.MAX_UNHELD", 2)
    world: World = gate.extra["world"]
    names = []
    for number in range(5):
        entry = await world.mallory.run(previewing(NUMBERS["mallory"] ^ gate.extra["shade"] ^ number))
        names += [image["filename"] for image in images_of(entry)]
    alices = images_of(await world.alice.run(previewing(NUMBERS["alice"] ^ gate.extra["shade"])))[0]["filename"]
    await world.alice.post("/history", json={"clear": True})
    await world.mallory.post("/history", json={"clear": True})
    temp = gate.extra["folder"].parents[2] / "temp"
    async with asyncio.timeout(GUARD_S):
        while any((temp / name).exists() for name in names[:-1]):
            await asyncio.sleep(0.01)
    assert [(temp / name).exists() for name in (names[-1], alices)] == [True, True], "who has most gives way"


async def set_quota(gate: Running, room: int) -> None:
    size = gate.extra["used"] + room
    text = re.sub(r"storage = \d+", f"storage = {size}", gate.config_file.read_text(encoding="utf-8"))
    text = re.sub(r"\[tenants.mallory\]\n(?!limits)", '[tenants.mallory]\nlimits = "small"\n', text)
    gate.config_file.write_text(text, encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)


async def test_previews_count_and_what_waits_is_cancelled_when_the_tenant_is_full(gate: Running) -> None:
    await set_quota(gate, 10)
    first = await gate.json("POST", "/prompt", "mallory", json={"prompt": slow(seconds=1.0, steps=2)})
    for number in range(3):
        assert await gate.status("POST", "/prompt", "mallory", json={"prompt": slow(60.0 + number)}) == 200
    own = await gate.json("POST", "/prompt", "alice", json={"prompt": slow(70.0)})
    async with asyncio.timeout(240):
        while b'"reason":"storage-full"' not in (gate.config_file.parent / AUDIT_FILE).read_bytes():
            await asyncio.sleep(0.05)
        # Whose job is next is the fair queue's to say: one of hers may run, none waits.
        while (await gate.json("GET", "/queue", "mallory"))["queue_pending"]:
            await asyncio.sleep(0.05)
    assert list(await gate.json("GET", "/history", "mallory")) == [first["prompt_id"]]
    assert await gate.status("POST", "/prompt", "mallory", json={"prompt": slow()}) == 507
    queue = await gate.json("GET", "/queue", "alice")
    theirs = [item[1] for part in queue.values() for item in part]
    assert theirs == [own["prompt_id"]], "a neighbour's jobs stay"

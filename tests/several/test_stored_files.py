"""Results that the operator's storage has, while the ComfyUI that made them is away, is configured no more, or its folders cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.driver import saving, slow
from tests.proxy.copies.making import output_of, settled
from tests.proxy.v2.asking import ask, submitted, until
from tests.several.test_draining import drain, stop
from tests.several.test_placing import ended, ran_where, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, several

AT_SECOND = {FIRST: 'tenants = ["mallory"]'}
SAME = ("ETag", "Content-Type", "Content-Length", "Content-Disposition", "Content-Security-Policy", "Cache-Control")


def storage(folder: Path) -> str:
    (folder / "bucket").mkdir(exist_ok=True)
    return f'[storage]\nurl = "file://{folder / "bucket"}"\n'


async def made_and_copied(world: SeveralWorld) -> list[str]:
    """A job of alice's at the second one; all addresses of its one file."""
    done = await submitted(world.gate, saving("kept", 7))
    await until(world.gate, done, "succeeded")
    await settled(world.gate, 1)
    output = await output_of(world.gate, done)
    return [
        f"/view?filename=kept_00001_.png&subfolder=%40{SECOND}",
        f"/api/view?filename=kept_00001_.png+%5Boutput%5D&subfolder=%40{SECOND}",
        f"/api/v2/assets/{output['id']}/content",
        f"/gate/jobs/{done}/outputs/2",
    ]


async def told(
    world: SeveralWorld, path: str, who: str = "alice", **fields: str
) -> tuple[int, Mapping[str, Any], bytes]:
    async with world.gate.call("GET", path, who, headers=fields) as answer:
        return answer.status, answer.headers, await answer.read()


@pytest.mark.parametrize("has_directories", [True, False])
async def test_a_file_comes_from_the_storage_while_its_comfyui_is_away(tmp_path: Path, has_directories: bool) -> None:
    options: dict[str, Any] = {"has_directories": has_directories, "settings": AT_SECOND, "more": storage(tmp_path)}
    async with several(tmp_path, **options) as world:
        paths = await made_and_copied(world)
        before = {path: await told(world, path) for path in paths}
        await world.stop(SECOND)
        if has_directories:
            Path(world.comfyuis[SECOND].folders.output).rename(tmp_path / "unmounted")
        for path in paths:
            status, headers, body = await told(world, path)
            assert (status, body) == (200, before[path][2]), path
            assert {name: headers.get(name) for name in SAME} == {name: before[path][1].get(name) for name in SAME}, (
                path
            )
            assert (await told(world, path, Range="bytes=3-9"))[::2] == (206, body[3:10])
            assert (await told(world, path, **{"If-None-Match": headers["ETag"]}))[0] == 304
            assert await world.gate.status("HEAD", path, "alice") == 200
            assert (await told(world, path, "mallory"))[0] in (404, 503)
        assert (await told(world, paths[0] + "&preview=webp"))[2] == before[paths[0]][2]


async def test_one_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with several(tmp_path, has_directories=False, settings=AT_SECOND, more=storage(tmp_path)) as world:
        paths = await made_and_copied(world)
        before = {path: (await told(world, path))[2] for path in paths}
        watcher = world.gate.gate.dependencies.queue_watchers.of(SECOND)
        monkeypatch.setattr(type(watcher.queue), "is_silent", property(lambda queue: queue is watcher.queue))
        world.comfyuis[SECOND].received.clear()
        for path in paths:
            assert (await told(world, path))[::2] == (200, before[path]), path
        asked = [each.raw_path for each in world.comfyuis[SECOND].received if "view" in each.raw_path]
        assert asked == []
        assert (await told(world, paths[0].replace("00001", "00002")))[0] == 404, "it is asked for what is not copied"


async def test_what_is_not_copied_is_said_to_be_away(tmp_path: Path) -> None:
    async with several(tmp_path, has_directories=False, settings=AT_SECOND, more=storage(tmp_path)) as world:
        paths = await made_and_copied(world)
        for file in (tmp_path / "bucket").rglob("*.png"):
            file.unlink()
        await world.stop(SECOND)
        answer = await ask(world.gate, "GET", paths[0])
        assert (answer.status, answer.body["error"]["type"]) == (503, "storage_unavailable")
        answer = await ask(world.gate, "GET", paths[0].replace("00001", "00002"))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert SECOND in answer.body["error"]["message"]


PATIENT = {SECOND: 'gone_after = "600s"'}


def reading(number: int = 0, name: str = "kept_00001_.png") -> dict[str, Any]:
    """A job that no cache knows, and reads what was made at the second one."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"@{SECOND}/{name} [output]"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"read{number}"}},
    }


async def made_at_second(world: SeveralWorld) -> None:
    """And copied."""
    assert (await drain(world, "--comfyui", FIRST)).code == 0
    await made_and_copied(world)
    assert (await drain(world, "--comfyui", FIRST, "--off")).code == 0


async def until_away(world: SeveralWorld) -> None:
    await world.stop(SECOND)
    async with asyncio.timeout(240):
        while world.gate.gate.dependencies.queue_watchers.is_well(SECOND):
            await asyncio.sleep(0.01)


async def test_a_job_that_reads_a_file_of_one_that_is_away_gets_its_copy(tmp_path: Path) -> None:
    """And reads the file itself, and its copy no more, when that is back."""
    async with several(tmp_path, has_directories=False, settings=PATIENT, more=storage(tmp_path)) as world:
        await made_at_second(world)
        await until_away(world)
        ids = [await submit(world, reading(number)) for number in range(2)]
        entries = await ended(world, ids)
        assert {entry["status"]["status_str"] for entry in entries.values()} == {"success"}
        assert ran_where(world, ids) == {FIRST: 2}
        [made] = entries[ids[0]]["outputs"]["2"]["images"]
        assert pixels(await made_body(world, made)) == pixels(original(world))
        brought = Path(world.first.folders.output, f"tenants/alice/@{SECOND}/kept_00001_.png")
        before = brought.stat().st_mtime_ns
        await world.start(SECOND)
        await world.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        assert (await drain(world, "--comfyui", SECOND)).code == 0
        await ended(world, [last := await submit(world, reading(2))])
        assert ran_where(world, [last]) == {FIRST: 1}
        assert brought.stat().st_mtime_ns == before, "it is the same file"


async def made_body(world: SeveralWorld, made: Mapping[str, str]) -> bytes:
    return (await told(world, f"/view?filename={made['filename']}&subfolder={made['subfolder']}"))[2]


def original(world: SeveralWorld) -> bytes:
    return Path(world.comfyuis[SECOND].folders.output, f"tenants/alice/@{SECOND}/kept_00001_.png").read_bytes()


def pixels(picture: bytes) -> Any:
    with Image.open(BytesIO(picture)) as opened:
        return opened.size, opened.convert("RGB").tobytes()


async def test_one_that_says_nothing_is_not_asked_for_what_a_job_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with several(tmp_path, has_directories=False, settings=PATIENT, more=storage(tmp_path)) as world:
        await made_at_second(world)
        watcher = world.gate.gate.dependencies.queue_watchers.of(SECOND)
        monkeypatch.setattr(type(watcher.queue), "is_silent", property(lambda queue: queue is watcher.queue))
        world.comfyuis[SECOND].received.clear()
        await ended(world, [prompt_id := await submit(world, reading())])
        assert ran_where(world, [prompt_id]) == {FIRST: 1}
        assert not [each.raw_path for each in world.comfyuis[SECOND].received if "view" in each.raw_path]


async def test_a_job_whose_file_no_copy_stands_for_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the bucket does not give what it has, which is tried now and then; those behind it go on."""
    async with several(tmp_path, has_directories=False, settings=PATIENT, more=storage(tmp_path)) as world:
        await made_at_second(world)
        (tmp_path / "bucket/alice").rename(tmp_path / "away")
        await until_away(world)
        read = await submit(world, reading(0))
        neighbours = await submit(world, reading(1), "mallory")
        unknown = await submit(world, reading(2, "kept_00002_.png"))
        async with asyncio.timeout(240):
            while "a copy cannot be read" not in caplog.text:
                await asyncio.sleep(0.01)
        await ended(world, [await submit(world, slow(0.1, 1), "mallory") for _ in range(4)], "mallory")
        active = {job.prompt_id: job for job in world.gate.gate.dependencies.registry.active()}
        assert [active[each].state.value for each in (read, neighbours, unknown)] == ["waiting"] * 3
        assert caplog.text.count("a copy cannot be read") == 1
        (tmp_path / "away").rename(tmp_path / "bucket/alice")
        monkeypatch.setattr(world.gate.gate.dependencies.transfers.instead.__self__, "_clock", lambda: 1e9)  # type: ignore[union-attr]
        entries = await ended(world, [read])
        assert entries[read]["status"]["status_str"] == "success"
        await stop(world, [unknown])


@pytest.mark.parametrize("has_directories", [True, False])
async def test_a_file_of_one_that_is_configured_no_more_comes_from_the_storage(
    tmp_path: Path, has_directories: bool
) -> None:
    async with several(tmp_path, has_directories=has_directories, settings=AT_SECOND, more=storage(tmp_path)) as world:
        paths = await made_and_copied(world)
        before = {path: await told(world, path) for path in paths}
    more = storage(tmp_path)
    async with several(tmp_path, (FIRST,), has_directories=has_directories, more=more) as world:
        for path in paths:
            status, _, body = await told(world, path)
            assert (status, body) == (200, before[path][2]), path
            assert (await told(world, path, "mallory"))[0] in (404, 503)
        assert (await told(world, paths[0].replace("00001", "00002")))[0] == 503

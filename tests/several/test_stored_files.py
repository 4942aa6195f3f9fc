"""Results that the operator's storage has, while the ComfyUI that made them is away, is configured no more, or its folders cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.driver import saving
from tests.proxy.copies.making import output_of, settled
from tests.proxy.v2.asking import ask, submitted, until
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

"""The programs of docs/sdk.md, as they stand there: a workflow goes through, its picture comes back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.clients.examples import read_examples
from tests.v2.installed import node, sdk_python
from tests.v2.sdk import add_modules, variables
from tests.v2.world import World, new_color, pixels, saving_new

PAGE = Path(__file__).parents[2] / "docs" / "sdk.md"
EXAMPLES = read_examples(PAGE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_examples_work(world: World, name: str, tmp_path: Path) -> None:
    folder, color = tmp_path / "desk", new_color()
    await asyncio.to_thread(add_modules, folder)
    (folder / name).write_text(EXAMPLES[name], encoding="utf-8")
    graph = saving_new()
    graph["1"]["inputs"]["color"] = color
    (folder / "workflow.json").write_text(json.dumps(graph), encoding="utf-8")
    interpreter = await asyncio.to_thread(sdk_python if name.endswith(".py") else node)
    process = await asyncio.create_subprocess_exec(
        interpreter, name, cwd=folder, env=variables(world.recorder.url, world.gate.keys["alice"])
    )
    async with asyncio.timeout(world.guard_s):
        assert await process.wait() == 0
    _, painted = pixels((folder / "result.png").read_bytes())
    assert painted == (color >> 16, color >> 8 & 0xFF, color & 0xFF)


def test_there_is_one_for_each_sdk() -> None:
    assert EXAMPLES.keys() == {"sdk.py", "sdk.mjs"}

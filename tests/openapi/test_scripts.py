"""The examples of the page, as they stand there: each saves what the function makes. No key stands in them."""

from __future__ import annotations

import asyncio
import html
import io
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from tests.clients.installed import python_folder
from tests.clients.runs import LIMIT_S, REAL_URL
from tests.clients.typescript import strip
from tests.harness import running_gate
from tests.openapi.world import FUNCTIONS, MORE, TENANTS, documented
from tests.programs import needs, path_of
from tests.proxy.functions.calls import Caller, write_functions
from tests.proxy.v2.assets.sdk import Standing

pytestmark = [pytest.mark.timeout(900), needs("curl", "node", "npm")]
LANGUAGES = ("curl", "Python", "TypeScript")
GIVEN = {"first.png": (200, 30, 30), "second.png": (30, 200, 30)}
TARGETS = [pytest.param("standin", id="standin")]
if REAL_URL:
    TARGETS.append(pytest.param("real", id="real", marks=pytest.mark.live))


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    if request.param == "standin":
        async with documented(tmp_path / "gate") as world:
            yield world
        return
    write_functions(tmp_path, FUNCTIONS)
    async with running_gate(tmp_path, REAL_URL, tenants=TENANTS, more=MORE) as running:
        yield Standing(running, None, None)


async def scripts_on_page(world: Standing, function: str) -> dict[str, str]:
    """By language, as a browser shows them."""
    page = await Caller(world.gate).ask(
        "GET", "/gate/docs", headers={"Accept": "text/html", "Accept-Encoding": "identity"}
    )
    section = re.search(rf'<section class="function" id="run-{function}">.*?</section>', page.raw.decode(), re.DOTALL)
    assert section is not None
    shown = re.findall(r"<summary>(\w+)</summary><pre[^>]*><code>(.*?)</code></pre>", section[0], re.DOTALL)
    assert tuple(language for language, _ in shown) == LANGUAGES
    assert world.gate.keys["alice"] not in section[0]
    return {language: html.unescape(text) for language, text in shown}


def picture(color: tuple[int, int, int]) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(target, "PNG")
    return target.getvalue()


async def run(world: Standing, folder: Path, language: str, script: str) -> dict[str, bytes]:
    """The files that it leaves, by name."""
    folder.mkdir()
    for name, color in GIVEN.items():
        (folder / name).write_bytes(picture(color))
    before = {each.name for each in folder.iterdir()}
    match language:
        case "curl":
            command = ["sh", "-ec", script]
        case "Python":
            installed = await asyncio.to_thread(python_folder)
            command = [str(installed / "bin" / "python"), "-W", "ignore", "-c", script]
        case _:
            node = path_of("node")
            (folder / "example.ts").write_text(script, "utf-8")
            await strip(node, folder / "example.ts", folder / "example.mjs")
            command = [node, "example.mjs"]
            before |= {"example.ts", "example.mjs"}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "COMFYGATE_KEY": world.gate.keys["alice"]}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"error" not in output, output.decode()
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name not in before}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_example_saves_the_picture(gate: Standing, tmp_path: Path, language: str) -> None:
    script = (await scripts_on_page(gate, "paint"))[language]
    (saved,) = (await run(gate, tmp_path / "desk", language, script)).values()
    assert Image.open(io.BytesIO(saved)).convert("RGB").getpixel((5, 5)) == (0, 0, 7)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_example_sends_files_and_saves_all_that_is_made(gate: Standing, tmp_path: Path, language: str) -> None:
    script = (await scripts_on_page(gate, "wear"))[language]
    saved = await run(gate, tmp_path / "desk", language, script)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for name, data in saved.items() if name.endswith(".png")]
    assert {shown.getpixel((5, 5)) for shown in pictures} == set(GIVEN.values())
    assert [data for name, data in saved.items() if name.endswith(".txt")] == [b"it's"]


@pytest.mark.parametrize(("language", "function"), [*((each, "paint") for each in LANGUAGES), ("curl", "wear")])
async def test_an_example_tells_why_it_was_refused(
    world: Standing, tmp_path: Path, language: str, function: str
) -> None:
    script = (await scripts_on_page(world, function))[language].replace(f"/gate/run/{function}", "/gate/run/nothing")
    script = script.replace(f"cat {function} ", "cat nothing ")  # the name that curl gives an answer without one
    with pytest.raises(AssertionError, match="There is no such function for you"):
        await run(world, tmp_path / "desk", language, script)

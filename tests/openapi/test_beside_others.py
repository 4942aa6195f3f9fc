"""The column "here" of the table in docs/functions.md, as it stands there, typed into a shell."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.refusals import ROOT
from tests.programs import needs
from tests.proxy.functions.calls import Caller, calling
from tests.proxy.v2.assets.sdk import Standing

PAGE = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
HELLO_TOML = re.search(r"<<'END'\n(title = \"Hello\".*?)END\n", PAGE, re.DOTALL)
HELLO = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "hello"}},
}
WEAR_TOML = '[parameters.picture]\ntype = "image"\nfills = ["1.image"]\n[outputs.worn]\nnode = "2"\n'
WEAR = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "worn"}},
}
TENANTS = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\n'
LIMIT_S = 240.0
# What each row's commands say, in order; a last row without commands leads to a page of its own.
SAID = {
    "run and wait": ['"status":"succeeded"'],
    "begin, and go on": ['"id":"'],
    "ask how far it is": ['"status":"succeeded"'],
    "follow it": ['event: status\ndata: {"status":"succeeded"}', 'event: status\ndata: {"status":"succeeded"}'],
    "get the picture": ["", ""],
    "send a picture": ['"status":"succeeded"', '"assets":{"picture":'],
    "send it twice, and run it once": ['"id":"'],
    "cancel": ['"status":"succeeded"'],
    "cancel when the client leaves": ['"status":"succeeded"'],
    "see what there is": ['"openapi":"3.1.1"', '"name":"hello"'],
    "run a workflow that is no function": ['"prompt_id"'],
}
pytestmark = needs("bash", "curl", "base64")


def rows() -> dict[str, list[str]]:
    """Commands of the last column, by the first."""
    table = PAGE.partition("## Beside others")[2]
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        # `|` in a command is no end of a cell.
        cells = re.findall(r"(?:`[^`]*`|[^|`])+", line.strip().removeprefix("|").removesuffix("|"))
        if line.startswith("| ") and len(cells) >= 6 and not line.startswith("| to |"):
            commands = re.findall(r"`([^`]+)`", cells[-1])
            found[cells[0].strip()] = [each for each in commands if each.startswith(("gate ", "curl "))]
    return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Standing]:
    assert HELLO_TOML is not None
    functions = {"hello": (HELLO_TOML[1], HELLO), "wear": (WEAR_TOML, WEAR)}
    async with calling(tmp_path / "gate", tenants=TENANTS, functions=functions) as found:
        yield found


def test_the_table_is_tested_whole() -> None:
    found = rows()
    assert found.pop("be told of the end") == [], "docs/webhooks.md has tests of its own"
    assert {row: len(commands) for row, commands in found.items()} == {row: len(said) for row, said in SAID.items()}


@pytest.mark.parametrize("row", list(SAID))
async def test_each_call_does_what_the_table_says(world: Standing, tmp_path: Path, row: str) -> None:
    job = await Caller(world.gate).run("hello", {"color": 255}, Prefer="wait=60")
    assert job.body["status"] == "succeeded"
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "photo.png").write_bytes(await picture(world, job.body["id"]))
    (desk / "workflow.json").write_text(json.dumps(HELLO), encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "GATE": world.gate.url,
        "KEY": world.gate.keys["alice"],
        "JOB": job.body["id"],
    }
    shortcut = re.search(r"^gate\(\) .*$", PAGE, re.MULTILINE)
    assert shortcut is not None
    for command, expected in zip(rows()[row], SAID[row], strict=True):
        first = await typed(f"{shortcut[0]}\n{command}", desk, environment)
        assert expected in first, first
        if "Idempotency-Key" in command:
            again = await typed(f"{shortcut[0]}\n{command}", desk, environment)
            assert json.loads(again)["id"] == json.loads(first)["id"]
        if "-o blue.png" in command:
            assert Image.open(desk / "blue.png").convert("RGB").getpixel((3, 3)) == (0, 0, 255)
            (desk / "blue.png").unlink()


async def typed(script: str, folder: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-ec",
        script,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LIMIT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def picture(world: Standing, prompt_id: str) -> bytes:
    shown = await Caller(world.gate).ask("GET", f"/gate/jobs/{prompt_id}/outputs/picture")
    assert Image.open(io.BytesIO(shown.raw)).size == (256, 256)
    return shown.raw

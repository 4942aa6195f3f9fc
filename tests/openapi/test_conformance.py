"""The document is OpenAPI, and the gate answers as it says. The long form: `make openapi`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.openapi.checks import check
from tests.openapi.installed import checker_programs
from tests.openapi.world import document_of
from tests.proxy.v2.assets.sdk import Standing

pytestmark = pytest.mark.timeout(900)


async def test_the_document_is_openapi(world: Standing, tmp_path: Path) -> None:
    programs = await asyncio.to_thread(checker_programs)
    for who, api in (("alice", "functions"), ("mallory", "functions"), ("alice", "v2")):
        (tmp_path / "openapi.json").write_bytes((await document_of(world, who, api)).raw)
        process = await asyncio.create_subprocess_exec(
            str(programs / "openapi-spec-validator"), str(tmp_path / "openapi.json"), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


async def test_every_answer_is_as_documented(world: Standing, tmp_path: Path) -> None:
    said = await check(world, tmp_path, "--phases", "examples,coverage,stateful", "--max-examples", "3", "--seed", "1")
    generated = re.search(r"(\d+) generated", said)
    assert generated is not None
    assert int(generated[1]) > 300, said


async def test_every_answer_of_the_api_v2_is_as_documented(world: Standing, tmp_path: Path) -> None:
    phases = ("--phases", "examples,coverage,stateful", "--max-examples", "3", "--seed", "1")
    said = await check(world, tmp_path, *phases, api="v2")
    assert re.search(r"Tested: +12", said), said


@pytest.mark.parametrize("accept", ["image/png", "text/event-stream"])
async def test_other_ways_of_asking_are_documented_too(world: Standing, tmp_path: Path, accept: str) -> None:
    run = ("--include-path-regex", "/gate/run/", "--phases", "examples,coverage", "--max-examples", "1", "--seed", "1")
    said = await check(world, tmp_path, "--header", f"Accept: {accept}", *run)
    assert re.search(r"Tested: +6", said), said  # three functions, called and described

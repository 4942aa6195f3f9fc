"""What `make clients` runs besides test_*.py: it installs each client of rows.py in a folder of its own, so it is no part of the suite."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.clients.installed import client_folder, node_client_folder
from tests.clients.record import record
from tests.clients.rows import NODE, PROGRAMS, PYTHON, Row
from tests.clients.runs import LOADS, PAINTS, TARGETS, Desk, check_that_it_was_alices, gate_before, upstream_of
from tests.harness import Running
from tests.programs import path_of
from tests.proxy.commands.test_connect_proxy import forwarding


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with gate_before(request.param, tmp_path) as running:
        yield running


@asynccontextmanager
async def desk_for(row: Row, gate: Running, folder: Path) -> AsyncIterator[Desk]:
    """Where the program runs: only a client that has a field for the key is told it."""
    desk = Desk(folder, gate, LOADS if row.loads else PAINTS)
    # Under another name: a script beside a package of its own name would import itself.
    (folder / f"program{Path(row.program).suffix}").write_bytes((PROGRAMS / row.program).read_bytes())
    key = desk.environment["COMFY_KEY"]
    if row.door != "field":
        del desk.environment["COMFY_KEY"]
    if row.door == "address":
        desk.environment["COMFY_URL"] = gate.url.replace("//", f"//key:{key}@")
    if row.door != "connect":
        yield desk
        return
    async with forwarding(gate.url, key) as url:
        desk.environment["COMFY_URL"] = url
        yield desk


async def run(row: Row, program: str, gate: Running, desk: Desk) -> None:
    before = len(await gate.json("GET", "/history", "alice"))
    await desk.run(program, *(["-e"] if program == "sh" else []), f"program{Path(row.program).suffix}")
    assert desk.has_result()
    await check_that_it_was_alices(gate, before)
    record(client=row.name, version=row.version, upstream=await upstream_of(gate), what=row.what)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", PYTHON, ids=[row.name for row in PYTHON])
async def test_python_program(row: Row, gate: Running, tmp_path: Path) -> None:
    binaries = await asyncio.to_thread(client_folder, *row.requires) / "bin"
    async with desk_for(row, gate, tmp_path / "desk") as desk:
        desk.environment["PATH"] = f"{binaries}:{desk.environment['PATH']}"
        await run(row, str(binaries / "python") if row.program.endswith(".py") else "sh", gate, desk)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", NODE, ids=[row.name for row in NODE])
async def test_node_program(row: Row, gate: Running, tmp_path: Path) -> None:
    node, _ = path_of("node"), path_of("npm")
    version = subprocess.run((node, "--version"), capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < row.node:
        pytest.skip(f"NOT TESTED: {row.name} needs Node {row.node}, here is {version}")
    installed = await asyncio.to_thread(node_client_folder, row.name, row.version)
    async with desk_for(row, gate, tmp_path / "desk") as desk:
        (desk.folder / "node_modules").symlink_to(installed / "node_modules")
        await run(row, node, gate, desk)


def test_every_program_has_a_row() -> None:
    assert {row.program for row in (*PYTHON, *NODE)} == {file.name for file in PROGRAMS.iterdir() if file.is_file()}

"""Real clients, unchanged but for address and key, run what docs/clients.md says: a workflow goes through, its picture comes back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.clients.examples import read_examples
from tests.clients.installed import NODE_FILES, REQUIREMENTS, node_folder, python_folder
from tests.clients.record import record
from tests.clients.runs import (
    COLOUR,
    LIMIT_S,
    LOADS,
    PAINTS,
    TARGETS,
    Desk,
    check_that_it_was_alices,
    gate_before,
    upstream_of,
)
from tests.harness import Running
from tests.ports import free_port
from tests.programs import path_of

EXAMPLES = read_examples()


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with gate_before(request.param, tmp_path) as running:
        yield running


def version_of(package: str) -> str:
    """Of a client as it is pinned here."""
    pinned = re.search(rf"^{re.escape(package)}==(.+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    if pinned:
        return pinned[1]
    return str(json.loads(NODE_FILES[0].read_text(encoding="utf-8"))["dependencies"][package])


LABELS = {"ws": "ws with fetch, in Node", "websocket-client": "websocket-client with urllib"}
PYTHON = [
    ("websockets_api.py", "websocket-client", PAINTS, "queues a workflow, follows its events, fetches the picture"),
    (
        "polling.py",
        "requests",
        LOADS,
        "uploads a picture, queues a workflow with it, asks until it is done, fetches the picture",
    ),
    ("simplified.py", "comfy-api-simplified", PAINTS, "queues a workflow, waits for its events, fetches the picture"),
]
NODE = [
    ("ws_fetch.mjs", "ws", "queues a workflow, follows its events, fetches the picture"),
    ("saintno.mjs", "@saintno/comfyui-sdk", "queues a workflow, follows its events, fetches the picture"),
    (
        "stable_canvas.mjs",
        "@stable-canvas/comfyui-client",
        "queues a workflow, follows its events, fetches the picture",
    ),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "client", "workflow", "what"), PYTHON, ids=[row[0] for row in PYTHON])
async def test_python_clients(
    name: str, client: str, workflow: dict[str, Any], what: str, gate: Running, tmp_path: Path
) -> None:
    installed = await asyncio.to_thread(python_folder)
    desk = Desk(tmp_path / "desk", gate, workflow)
    (desk.folder / name).write_text(EXAMPLES[name], encoding="utf-8")
    before = len(await gate.json("GET", "/history", "alice"))
    await desk.run(str(installed / "bin" / "python"), name)
    assert desk.has_result()
    await check_that_it_was_alices(gate, before)
    record(client=LABELS.get(client, client), version=version_of(client), upstream=await upstream_of(gate), what=what)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "client", "what"), NODE, ids=[row[0] for row in NODE])
async def test_node_clients(name: str, client: str, what: str, gate: Running, tmp_path: Path) -> None:
    node, _ = path_of("node"), path_of("npm")
    installed = await asyncio.to_thread(node_folder)
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    (desk.folder / name).write_text(EXAMPLES[name], encoding="utf-8")
    (desk.folder / "node_modules").symlink_to(installed / "node_modules")
    before = len(await gate.json("GET", "/history", "alice"))
    await desk.run(node, name)
    assert desk.has_result()
    await check_that_it_was_alices(gate, before)
    record(client=LABELS.get(client, client), version=version_of(client), upstream=await upstream_of(gate), what=what)


async def test_curl(gate: Running, tmp_path: Path) -> None:
    curl = path_of("curl")
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    before = len(await gate.json("GET", "/history", "alice"))
    await desk.run("sh", "-ec", EXAMPLES["curl.sh"])
    assert desk.has_result()
    await check_that_it_was_alices(gate, before)
    version = (await desk.run(curl, "--version")).split()[1]
    what = "queues a workflow, asks until it is done, fetches the picture"
    record(client="curl", version=version, upstream=await upstream_of(gate), what=what)


async def test_a_key_in_the_address(gate: Running, tmp_path: Path) -> None:
    path_of("curl")
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    answers = await desk.run("sh", "-ec", EXAMPLES["address.sh"])
    assert answers.count("queue_running") == 2
    assert gate.keys["alice"] not in gate.log.getvalue().decode()
    if gate.comfy is not None:
        assert gate.keys["alice"] not in repr(gate.comfy.received)


@pytest.mark.parametrize("call", ["GET /queue", "POST /prompt", "GET /ws?clientId=x"])
async def test_a_client_that_appends_its_paths_to_an_address_with_a_token_is_told_of_connect(
    call: str, gate: Running
) -> None:
    method, path = call.split()
    address = f"/?token={gate.keys['alice']}"
    async with gate.call(method, address + path, None) as answer:
        told = await answer.json()
        assert answer.status == 401
    assert "`comfygate connect`" in told["error"]["message"]
    assert gate.keys["alice"] not in str(told)
    assert gate.keys["alice"] not in gate.log.getvalue().decode()


@pytest.mark.timeout(900)
async def test_comfy_cli(gate: Running, tmp_path: Path) -> None:
    """Through `comfygate connect`, since it can send no credential."""
    installed = await asyncio.to_thread(python_folder)
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    desk.environment["PATH"] = f"{installed / 'bin'}{os.pathsep}{desk.environment['PATH']}"
    port = str(free_port())
    connect, run = (EXAMPLES[name].replace("8188", port) for name in ("connect.sh", "comfy_cli.sh"))
    before = len(await gate.json("GET", "/history", "alice"))
    async with desk.start("sh", "-ec", connect) as forwarder, asyncio.timeout(LIMIT_S):
        assert forwarder.stdout is not None
        assert b"for programs on this machine" in await forwarder.stdout.readline()
        done = json.loads((await desk.run("sh", "-ec", run)).splitlines()[-1])
        assert done["data"]["status"] == "completed"
        address = done["data"]["outputs"][0]
        async with gate.session.get(address) as answer:
            shown = Image.open(io.BytesIO(await answer.read())).convert("RGB")
        assert shown.getpixel((9, 9)) == COLOUR
    await check_that_it_was_alices(gate, before)
    what = "`comfy run --wait` through `comfygate connect`; its picture is fetched from the address it prints"
    record(client="comfy-cli", version=version_of("comfy-cli"), upstream=await upstream_of(gate), what=what)


def test_every_example_is_run() -> None:
    run = {row[0] for row in PYTHON} | {row[0] for row in NODE}
    assert set(EXAMPLES) == run | {"curl.sh", "address.sh", "connect.sh", "comfy_cli.sh"}

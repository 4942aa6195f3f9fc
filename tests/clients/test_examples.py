"""Real clients, unchanged but for address and key, run what docs/clients.md says: a workflow goes through, its picture comes back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from proxy.standin import StandIn
from tests.clients.examples import read_examples
from tests.clients.installed import NODE_FILES, REQUIREMENTS, need, node_folder, python_folder
from tests.clients.record import record
from tests.harness import Running, running_gate

LIMIT_S = 60
COLOUR = (180, 90, 30)
EXAMPLES = read_examples()
EMPTY = {"width": 64, "height": 48, "batch_size": 1, "color": (COLOUR[0] << 16) + (COLOUR[1] << 8) + COLOUR[2]}


def exported(kind: str, title: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """A node as the web UI exports it."""
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


# It takes as long as the shortest real workflow: some clients listen only once they have the answer to POST /prompt, and miss the
# events of a job that is done before, with and without a gate.
SLOW = exported("SlowProgress", "Slow", {"image": ["1", 0], "seconds": 0.5, "steps": 5})
SAVE = exported("SaveImage", "Save Image", {"images": ["2", 0], "filename_prefix": "example"})
PAINTS = {"1": exported("EmptyImage", "EmptyImage", EMPTY), "2": SLOW, "3": SAVE}
LOADS = {"1": exported("LoadImage", "Load Image", {"image": "photo.png"}), "2": SLOW, "3": SAVE}
REAL_URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
TARGETS = [pytest.param("standin", id="standin")]
if REAL_URL:
    TARGETS.append(pytest.param("real", id="real", marks=pytest.mark.live))


@pytest.fixture(params=TARGETS)
async def gate(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    if request.param == "real":
        async with running_gate(tmp_path, REAL_URL) as running:
            yield running
        return
    comfy = StandIn(tmp_path / "comfyui", frontend=False)
    await comfy.start()
    try:
        async with running_gate(tmp_path, comfy.url) as running:
            running.comfy = comfy
            yield running
    finally:
        await comfy.stop()


def picture() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 48), COLOUR).save(target, "PNG")
    return target.getvalue()


class Desk:
    """A folder where an example runs, with the files that it expects."""

    def __init__(self, folder: Path, gate: Running, workflow: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
        (folder / "photo.png").write_bytes(picture())
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "COMFY_URL": gate.url,
            "COMFY_KEY": gate.keys["alice"],
            "DO_NOT_TRACK": "1",
        }

    @asynccontextmanager
    async def start(self, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Whatever the command starts ends with it."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()

    async def run(self, *command: str) -> str:
        async with self.start(*command) as process, asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
            text = output.decode(errors="replace")
            assert process.returncode == 0, text
            return text

    def has_result(self) -> bool:
        return Image.open(self.folder / "result.png").convert("RGB").getpixel((9, 9)) == COLOUR


async def check_that_it_was_alices(gate: Running, jobs_before: int) -> None:
    """One job more, and nobody else's; the key went no further than to the gate."""
    assert len(await gate.json("GET", "/history", "alice")) == jobs_before + 1
    assert gate.keys["alice"] not in gate.log.getvalue().decode()
    if gate.comfy is not None:
        assert await gate.json("GET", "/history", "mallory") == {}
        assert gate.keys["alice"] not in repr(gate.comfy.received)


def version_of(package: str) -> str:
    """Of a client as it is pinned here."""
    pinned = re.search(rf"^{re.escape(package)}==(.+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    if pinned:
        return pinned[1]
    return str(json.loads(NODE_FILES[0].read_text(encoding="utf-8"))["dependencies"][package])


async def upstream_of(gate: Running) -> str:
    if gate.comfy is not None:
        return "stand-in"
    return f"ComfyUI {(await gate.json('GET', '/system_stats'))['system']['comfyui_version']}"


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


@pytest.mark.timeout(400)
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


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "client", "what"), NODE, ids=[row[0] for row in NODE])
async def test_node_clients(name: str, client: str, what: str, gate: Running, tmp_path: Path) -> None:
    node, _ = need("node"), need("npm")
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
    curl = need("curl")
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    before = len(await gate.json("GET", "/history", "alice"))
    await desk.run("sh", "-ec", EXAMPLES["curl.sh"])
    assert desk.has_result()
    await check_that_it_was_alices(gate, before)
    version = (await desk.run(curl, "--version")).split()[1]
    what = "queues a workflow, asks until it is done, fetches the picture"
    record(client="curl", version=version, upstream=await upstream_of(gate), what=what)


async def test_a_key_in_the_address(gate: Running, tmp_path: Path) -> None:
    need("curl")
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    answers = await desk.run("sh", "-ec", EXAMPLES["address.sh"])
    assert answers.count("queue_running") == 2
    assert gate.keys["alice"] not in gate.log.getvalue().decode()
    if gate.comfy is not None:
        assert gate.keys["alice"] not in repr(gate.comfy.received)


@pytest.mark.timeout(400)
async def test_comfy_cli(gate: Running, tmp_path: Path, free_port: int) -> None:
    """Through `comfygate connect`, since it can send no credential."""
    installed = await asyncio.to_thread(python_folder)
    desk = Desk(tmp_path / "desk", gate, PAINTS)
    desk.environment["PATH"] = f"{installed / 'bin'}{os.pathsep}{desk.environment['PATH']}"
    connect, run = (EXAMPLES[name].replace("8188", str(free_port)) for name in ("connect.sh", "comfy_cli.sh"))
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

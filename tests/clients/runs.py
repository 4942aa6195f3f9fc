"""What the tests of clients share: a gate to speak to, a folder to run in, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from standin import StandIn
from tests.harness import Running, running_gate

LIMIT_S = 240.0
COLOUR = (180, 90, 30)
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


@asynccontextmanager
async def gate_before(target: str, folder: Path) -> AsyncIterator[Running]:
    """A gate in front of the stand-in, or of the ComfyUI at COMFYUI_URL."""
    if target == "real":
        async with running_gate(folder, REAL_URL) as running:
            yield running
        return
    comfy = StandIn(folder / "comfyui", frontend=False)
    await comfy.start()
    try:
        async with running_gate(folder, comfy.url) as running:
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


async def upstream_of(gate: Running) -> str:
    if gate.comfy is not None:
        return "stand-in"
    return f"ComfyUI {(await gate.json('GET', '/system_stats'))['system']['comfyui_version']}"

"""The gate that applications speak to, and how they are run."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from standin import StandIn
from tests.clients.runs import REAL_URL
from tests.harness import Running, running_gate
from tests.openapi.world import FUNCTIONS, MORE, TENANTS
from tests.proxy.functions.calls import write_functions

PAINT = FUNCTIONS["paint"]
ONLY_PAINT = TENANTS.replace('functions = ["*"]', 'functions = ["paint"]')
START_LIMIT_S = 300.0


@asynccontextmanager
async def gate_with_functions(target: str, folder: Path, more: str = "") -> AsyncIterator[Running]:
    """Before the stand-in, or the ComfyUI at COMFYUI_URL. more: of its configuration."""
    write_functions(folder, {"paint": PAINT})
    async with AsyncExitStack() as stack:
        url, comfy = REAL_URL, None
        if target != "real":
            comfy = StandIn(folder / "comfyui", frontend=False)
            await comfy.start()
            stack.push_async_callback(comfy.stop)
            url = comfy.url
        gate = await stack.enter_async_context(running_gate(folder, url, tenants=ONLY_PAINT, more=MORE + more))
        gate.comfy = comfy
        yield gate


@asynccontextmanager
async def program(
    folder: Path, environment: Mapping[str, str], *command: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Whatever it starts ends with the block. What it prints is in program.log of the folder."""
    with (folder / "program.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def run(folder: Path, environment: Mapping[str, str], *command: str) -> str:
    """What it has printed until now. Raises AssertionError when it fails."""
    async with program(folder, environment, *command) as process, asyncio.timeout(START_LIMIT_S):
        await process.wait()
    said = (folder / "program.log").read_text(encoding="utf-8", errors="replace")
    assert process.returncode == 0, said[-4000:]
    return said


async def answers(gate: Running, process: asyncio.subprocess.Process, url: str) -> None:
    """Returns when a server that was just started answers 200."""
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            assert process.returncode is None, "it has ended"
            with suppress(OSError):
                async with gate.session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)

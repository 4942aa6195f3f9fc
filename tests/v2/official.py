"""Comfy-Org's own server of the Comfy API v2 for self-hosting, comfy-api-proxy, as a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.programs import GUARD_S, NAP_S, listens
from tests.ports import free_port
from tests.v2.installed import proxy_program

VERSION = "0.1.6"
TOKEN = "token-of-the-tests"


@asynccontextmanager
async def running_proxy(folder: Path, comfyui: str) -> AsyncIterator[str]:
    """Its address; it takes TOKEN. folder: where it keeps its state and its log."""
    program, port = await asyncio.to_thread(proxy_program), free_port()
    state = folder / "state"
    state.mkdir(parents=True)
    options = ("--comfyui", comfyui, "--port", str(port), "--token", TOKEN, "--state-dir", str(state))
    with (folder / "proxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *options, stdout=log, stderr=log, cwd=folder)
    try:
        async with asyncio.timeout(GUARD_S):
            while not await listens(port):
                assert process.returncode is None, (folder / "proxy.log").read_text()
                await asyncio.sleep(NAP_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

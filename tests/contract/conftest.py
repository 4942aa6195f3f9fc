"""`comfy` is the stand-in and, where COMFYUI_URL is set, a real ComfyUI beside it; `standin` is the stand-in alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from standin import StandIn

from .driver import Comfy

REAL_URL = os.environ.get("COMFYUI_URL", "").rstrip("/")
TARGETS = [pytest.param("standin", id="standin")]
if REAL_URL:
    TARGETS.append(pytest.param("real", id="real", marks=pytest.mark.live))


async def _reach(url: str, session: aiohttp.ClientSession, *, is_real: bool) -> Comfy:
    async with session.get(f"{url}/system_stats") as reply:
        version = (await reply.json())["system"]["comfyui_version"]
    return Comfy(url, session, tuple(int(part) for part in version.split(".")[:3]), is_real)


@pytest.fixture
async def standin(tmp_path: Path) -> AsyncIterator[StandIn]:
    server = StandIn(tmp_path / "comfyui", frontend=False)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def local(standin: StandIn, session: aiohttp.ClientSession) -> Comfy:
    """The stand-in through the driver, for tests that no real server should have to bear."""
    return await _reach(standin.url, session, is_real=False)


@pytest.fixture(params=TARGETS)
async def comfy(request: pytest.FixtureRequest, tmp_path: Path, session: aiohttp.ClientSession) -> AsyncIterator[Comfy]:
    if request.param == "real":
        yield await _reach(REAL_URL, session, is_real=True)
        return
    server = StandIn(tmp_path / "comfyui", frontend=False)
    await server.start()
    yield await _reach(server.url, session, is_real=False)
    await server.stop()

"""`world` is everybody before a gate: on the stand-in and, where COMFYUI_URL is set, on a real ComfyUI too; `standing` on the stand-in alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL, TARGETS
from tests.matrix.world import World, open_world


@pytest.fixture(params=TARGETS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path, real_url=REAL_URL if request.param == "real" else "") as opened:
        yield opened


@pytest.fixture
async def standing(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_request_breaks_the_gate(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is sent: no bug of the gate's own, and no answer that broke off."""
    yield
    broken = [
        record
        for record in caplog.get_records("call")
        if (record.name == "comfygate" and record.levelname == "ERROR")
        or (record.name == "aiohttp.server" and record.getMessage().startswith("Unhandled exception"))
        or record.name == "asyncio"
    ]
    assert not broken, [record.getMessage() for record in broken]

"""`world` is everybody before a gate: on the stand-in and, where COMFYUI_URL is set, on a real ComfyUI too. `target`: for tests with settings of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL, TARGETS
from tests.matrix.world import REAL_BASE, World, open_world


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """The address of a real ComfyUI, or nothing for the stand-in."""
    return REAL_URL if request.param == "real" else ""


@pytest.fixture
def visible(target: str) -> str:
    """The same, where ComfyUI's folders are seen too."""
    if target and REAL_BASE is None:
        pytest.skip("COMFYUI_DIRECTORY does not say where its files lie")
    return target


@pytest.fixture
async def world(tmp_path: Path, target: str) -> AsyncIterator[World]:
    async with open_world(tmp_path, real_url=target) as opened:
        yield opened

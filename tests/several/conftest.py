"""Fixtures by role: `two` is a gate before two stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.wiring import fleet
from tests.several.world import SeveralWorld, several


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[SeveralWorld]:
    async with several(tmp_path) as world:
        yield world


@pytest.fixture
def gone_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ComfyUI that was taken out of the configuration does not stay for its files' sake."""
    monkeypatch.setattr(fleet, "STAYS_S", 0.0)
    monkeypatch.setattr(fleet, "LOOK_EACH_S", 0.01)

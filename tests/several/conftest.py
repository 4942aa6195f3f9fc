"""Fixtures by role: `two` is a gate before two stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.several.world import SeveralWorld, several


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[SeveralWorld]:
    async with several(tmp_path) as world:
        yield world

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.openapi.world import documented
from tests.proxy.v2.assets.sdk import Standing


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Standing]:
    async with documented(tmp_path / "gate") as found:
        yield found

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxy.functions.calls import calling
from tests.proxy.v2.assets.sdk import Standing


@pytest.fixture(params=["seen", "unseen"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    """A gate that sees ComfyUI's folders, and one that does not."""
    async with calling(tmp_path, is_seen=request.param == "seen") as found:
        yield found


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Standing]:
    async with calling(tmp_path) as found:
        yield found

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL
from tests.harness import running_gate
from tests.proxy.functions.calls import TENANTS, calling, write_functions
from tests.proxy.v2.assets.sdk import Standing

KINDS = [pytest.param("seen", id="seen"), pytest.param("unseen", id="unseen")]
if REAL_URL:
    KINDS.append(pytest.param("real", id="real", marks=pytest.mark.live))


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Standing]:
    """A gate that sees ComfyUI's folders, one that does not, and where there is one, one before a real ComfyUI whose folders it does not see."""
    if request.param == "real":
        write_functions(tmp_path)
        async with running_gate(tmp_path, REAL_URL, tenants=TENANTS) as gate:
            yield Standing(gate, None, None)
    else:
        async with calling(tmp_path, is_seen=request.param == "seen") as found:
            yield found


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Standing]:
    async with calling(tmp_path) as found:
        yield found

"""The long form, with new examples each time: `make openapi`. OPENAPI_EXAMPLES says how many of each operation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.openapi.checks import check
from tests.proxy.v2.assets.sdk import Standing


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("api", ["functions", "v2"])
async def test_every_answer_is_as_documented(world: Standing, tmp_path: Path, api: str) -> None:
    print(await check(world, tmp_path, "--max-examples", os.environ.get("OPENAPI_EXAMPLES", "200"), api=api))

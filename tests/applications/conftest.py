from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.runs import TARGETS


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Where the application keeps what is its own."""
    folder = tmp_path / "desk"
    folder.mkdir()
    return folder

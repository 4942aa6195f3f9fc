"""PostgreSQL is needed by some of these tests for real: without it they are skipped, loudly, and in CI they fail."""

from __future__ import annotations

import os

import pytest

from tests.faults.programs import postgresql_programs


@pytest.fixture
def needs_postgresql() -> None:
    if postgresql_programs() is None:
        assert not os.environ.get("CI"), "PostgreSQL is not installed"
        pytest.skip("NOT TESTED, not installed: PostgreSQL")

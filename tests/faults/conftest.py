"""PostgreSQL is needed by some of these tests for real: without it they are skipped, loudly, and in CI they fail."""

from __future__ import annotations

import os

import pytest

from tests.faults.programs import postgresql_programs

TEST_LIMIT_S = 900
"""Whole installations are started and killed several times, on a machine that may have much else to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/faults/"):
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))


@pytest.fixture
def needs_postgresql() -> None:
    if postgresql_programs() is None:
        assert not os.environ.get("CI"), "PostgreSQL is not installed"
        pytest.skip("NOT TESTED, not installed: PostgreSQL")

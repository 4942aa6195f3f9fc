"""Times as they are written: of a moment's own millisecond, and of no other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.times import utc


@pytest.mark.parametrize(
    ("at_s", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000"),
        (1_764_563_415.123, "2025-12-01T04:30:15.123"),
        (1_764_563_415.9999, "2025-12-01T04:30:15.999"),
        (1_764_563_415.9999999, "2025-12-01T04:30:16.000"),
    ],
)
def test_a_time_is_written_to_the_millisecond(at_s: float, written: str) -> None:
    assert utc(at_s) == written


@given(st.integers(0, 4_000_000_000_000))
def test_a_whole_millisecond_is_written_as_it_is(at_ms: int) -> None:
    """ComfyUI tells its times in those."""
    written = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    assert f"{utc(at_ms / 1000)}+00:00" == written

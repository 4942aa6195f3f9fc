"""Times, read by a parser of RFC 3339 that is not the writer's."""

from __future__ import annotations

import calendar
import re

from hypothesis import given
from hypothesis import strategies as st

from policy.v2.times import timestamp, timestamp_or_null

# RFC 3339, 5.6, with `Z` alone: the schemas that the SDKs export take no offset.
_DATE_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z", re.ASCII)
_YEAR_9999_S = 253_402_300_799


def read(text: str) -> float:
    found = _DATE_TIME.fullmatch(text)
    assert found is not None, text
    year, month, day, hour, minute, second, milliseconds = map(int, found.groups())
    assert 1 <= month <= 12
    assert 1 <= day <= calendar.monthrange(year, month)[1]
    assert (hour <= 23, minute <= 59, second <= 59) == (True, True, True)
    return calendar.timegm((year, month, day, hour, minute, second)) + milliseconds / 1000


@given(st.floats(0, _YEAR_9999_S))
def test_a_time_reads_as_what_it_is_to_the_millisecond(at_s: float) -> None:
    assert abs(read(timestamp(at_s)) - at_s) < 0.0011


def test_times_are_in_utc_and_say_so() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_796_000_000.25) == "2026-11-30T00:53:20.250Z"


def test_no_time_is_null() -> None:
    assert timestamp_or_null(None) is None
    assert timestamp_or_null(0.0) == "1970-01-01T00:00:00.000Z", "the beginning of all times is one"

"""Durations and rates as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.limits import parse_byte_rates
from proxy.config.units import parse_duration, parse_rates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("90d", 90 * 86400.0),
        ("2w", 14 * 86400.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1d 2h 3m 4s 5ms", 93784.005),
        ("0s", 0.0),
    ],
)
def test_durations(text: Any, expected: float) -> None:
    assert parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "30",
        "s",
        "-5s",
        -1,
        "5 minutes",
        "1y",
        "30s5m",
        True,
        None,
        [],
        float("inf"),
        float("nan"),
        -0.1,
        "1.5h",
    ],
)
def test_durations_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="write a duration such as"):
        parse_duration(text)


@given(st.integers(0, 50), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert parse_duration(text) == days * 86400 + hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["30/minute", "30 per minute", "30/minute; 500/day", "1/second"])
def test_rates(text: str) -> None:
    assert parse_rates(text) == text


@pytest.mark.parametrize("text", ["", "30", "30/fortnight", "x/minute", "-1/minute", 30, None])
def test_rates_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match="rate"):
        parse_rates(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1GiB/hour", "1073741824/hour"),
        ("1KiB / seconds", "1024/second"),
        ("1MB/minute; 10GiB/day", "1000000/minute; 10737418240/day"),
    ],
)
def test_rates_of_bytes(text: str, expected: str) -> None:
    assert parse_byte_rates(text) == expected
    assert parse_rates(parse_byte_rates(text))


@pytest.mark.parametrize("text", ["", "1GiB", "/hour", "1GiB/week", "1XB/hour", 5, None])
def test_rates_of_bytes_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError, match=r"rate of bytes|size"):
        parse_byte_rates(text)

"""Rates mean what they mean to the limits library, whose spellings they have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse_many

from proxy.config.rates import Rate, read_rates

PIECES = [
    "",
    " ",
    "\n",
    "1",
    "30",
    "007",
    "0",
    "/",
    " per ",
    "PER",
    "second",
    "Minutes",
    "hour",
    "days",
    "month",
    "years",
    "week",
    ";",
    ",",
    "|",
    "s",
    "-",
    "\u0663",
    "\u017f",
]


def by_the_library(text: str) -> list[tuple[int, int, str]] | None:
    try:
        return [(item.amount, item.get_expiry(), item.GRANULARITY.name) for item in parse_many(text)]
    except ValueError:
        return None


def by_the_gate(text: str) -> list[tuple[int, int, str]] | None:
    try:
        return [(rate.amount, rate.window_s, rate.unit) for rate in read_rates(text)]
    except ValueError:
        return None


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_is_read_alike(text: str) -> None:
    assert by_the_gate(text) == by_the_library(text)


AMOUNT = st.integers(0, 10**12).map(str)
COUNT = st.one_of(st.just(""), st.integers(0, 400).map(str))
UNIT = st.sampled_from(["second", "minute", "hour", "day", "month", "year"]).flatmap(
    lambda unit: st.sampled_from([unit, unit + "s", unit.upper(), f" {unit} "])
)
ONE = st.tuples(AMOUNT, st.sampled_from(["/", " / ", " per ", "per"]), COUNT, st.sampled_from(["", " "]), UNIT).map(
    "".join
)


@given(st.lists(ONE, min_size=1, max_size=3).map(";".join))
def test_rates_are_read_alike(text: str) -> None:
    assert by_the_gate(text) == by_the_library(text) is not None


@pytest.mark.parametrize(
    ("text", "rate", "window_s", "span"),
    [
        ("30/minute", Rate(30, 1, "minute"), 60, "minute"),
        ("500 per 2 Days", Rate(500, 2, "day"), 172_800, "2 days"),
        ("1/month", Rate(1, 1, "month"), 2_592_000, "month"),
        ("0/0seconds", Rate(0, 1, "second"), 1, "second"),
    ],
)
def test_a_rate_has_a_window_and_a_name(text: str, rate: Rate, window_s: int, span: str) -> None:
    assert read_rates(text) == [rate]
    assert (rate.window_s, rate.span) == (window_s, span)


def test_a_mistake_names_the_whole_text() -> None:
    with pytest.raises(ValueError, match="'30/minute; 5/week' is no rate"):
        read_rates("30/minute; 5/week")

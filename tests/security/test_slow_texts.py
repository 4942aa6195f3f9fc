"""Texts of a tenant that would keep the gate, and so everybody, busy for minutes: a backtracking pattern would not end within the test's time limit."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.namespace import ROOT, Namespace
from policy.principal import TenantId
from policy.rules.results import MAX_MESSAGE_LENGTH, scrub, scrub_text

MAL = Namespace(TenantId("mal"))
SIZE = 40_000_000


@pytest.mark.parametrize("unit", ["/", "/ ", "/@", "a:/", "\\", "/(", "'/", "C:\\ "])
def test_millions_of_slashes_are_read_once(unit: str) -> None:
    text = unit * (SIZE // len(unit)) + f"{ROOT}/"
    assert MAL.clean_text(text) == text


@pytest.mark.parametrize("unit", [f"{ROOT}/", f"/{ROOT}/mal", f"{ROOT}/mal/", "/" * 300 + f"{ROOT}/mal/x "])
def test_millions_of_mentions_are_read_once(unit: str) -> None:
    assert f"{ROOT}/mal/" not in MAL.clean_text(unit * (2_000_000 // len(unit)))


@given(
    st.lists(st.sampled_from([f"{ROOT}/mal/", f"{ROOT}\\mal", "/", "C:", "a", " ", "'", "-", "x/y", "\n"]), max_size=8)
)
def test_one_mention_is_cut_out_as_one_pattern_would(parts: list[str]) -> None:
    text = "".join(parts)
    if text.count("mal") > 1:
        return
    before = r"(?<![\w.-])(?:(?:[A-Za-z]:)?[\\/][^\r\n\"'<>|*?:]{0,300}?(?<=[\\/]))?"
    assert MAL.clean_text(text) == re.sub(before + rf"{ROOT}[\\/]+mal(?:[\\/]+|(?![\w-]))", "", text)


def test_messages_are_cut_before_they_are_read() -> None:
    told = scrub({"current_inputs": {"text": ["/@" * 20_000_000]}}, MAL)["current_inputs"]["text"][0]
    assert len(told) <= MAX_MESSAGE_LENGTH + 1
    assert told.endswith("…")


def test_messages_of_an_ordinary_length_are_whole() -> None:
    text = "cannot load x.png " * 100
    assert scrub_text(text, MAL) == text

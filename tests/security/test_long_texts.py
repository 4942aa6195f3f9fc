"""Long texts of a tenant are read once: what is looked at for each mention of its folder is bounded, however long the text is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import namespace
from policy.namespace import ROOT, Namespace
from policy.principal import TenantId
from policy.rules.results import MAX_MESSAGE_LENGTH, scrub, scrub_text

MAL = Namespace(TenantId("mal"))
SIZE = 20_000


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters were looked at before each mention."""
    lengths: list[int] = []
    start_of_path = namespace._start_of_path

    def count(text: str, earliest: int, mention: int) -> int | None:
        lengths.append(mention - earliest)
        return start_of_path(text, earliest, mention)

    monkeypatch.setattr(namespace, "_start_of_path", count)
    return lengths


@pytest.mark.parametrize("unit", ["/", "/ ", "/@", "a:/", "\\", "/(", "'/", "C:\\ "])
def test_text_without_a_mention_is_read_once(looked_at: list[int], unit: str) -> None:
    text = unit * (SIZE // len(unit)) + f"{ROOT}/"
    assert MAL.clean_text(text) == text
    assert looked_at == []


@pytest.mark.parametrize("unit", [f"/{ROOT}/mal", f"{ROOT}/mal/", "/" * 300 + f"{ROOT}/mal/x "])
def test_little_is_looked_at_before_each_mention(looked_at: list[int], unit: str) -> None:
    count = SIZE // len(unit)
    assert f"{ROOT}/mal/" not in MAL.clean_text(unit * count)
    assert len(looked_at) <= count
    assert looked_at
    assert max(looked_at) <= namespace._MAX_LEAD


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
    told = scrub({"current_inputs": {"text": ["/@" * MAX_MESSAGE_LENGTH]}}, MAL)["current_inputs"]["text"][0]
    assert len(told) <= MAX_MESSAGE_LENGTH + 1
    assert told.endswith("…")


def test_messages_of_an_ordinary_length_are_whole() -> None:
    text = "cannot load x.png " * 100
    assert scrub_text(text, MAL) == text

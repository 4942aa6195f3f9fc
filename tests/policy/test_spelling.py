from __future__ import annotations

import pytest

from policy.spelling import MAX_LENGTH, MAX_READINGS, decode, encode, is_name, is_plain, readings_of, spell, unspell
from tests.policy.names import ODD, ORDINARY


@pytest.mark.parametrize(
    "name",
    ["blake3:", "blake3:" + "0" * 64, "BLAKE3:0", "sha256:" + "a" * 64, "\uff42lake3:0", "C:x", "con.png", "\u200b"],
)
def test_names_that_mean_something_else_are_not_plain(name: str) -> None:
    assert not is_plain(name)
    assert unspell(spell(name)) == name


@pytest.mark.parametrize("name", [part for path in ORDINARY for part in path.split("/")])
def test_most_names_stay_as_they_are(name: str) -> None:
    assert is_plain(name)
    assert spell(name) == unspell(name) == name


@pytest.mark.parametrize(
    "name", ["~=", "~=x", "~=%", "~==C3", "~==ff", "~==2F", "~==2E=2E", "~=x" + "y" * MAX_LENGTH, "~=con (1).png"]
)
def test_what_is_no_spelling_is_a_name_of_its_own(name: str) -> None:
    assert unspell(name) == name


def test_a_name_with_too_many_readings_is_spelled() -> None:
    name = "%" + "25" * 70 + "41"
    assert len(readings_of(name)) > MAX_READINGS
    assert not is_plain(name)
    assert unspell(spell(name)) == name


def test_codes_that_are_no_text_are_not_decoded() -> None:
    assert decode("~==C3") is None
    assert decode(encode("\u00e9 \u65e5\uff0f")) == "\u00e9 \u65e5\uff0f"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "\ud800"])
def test_a_name_is_one_segment_of_text(name: str) -> None:
    assert not is_name(name)


def test_every_odd_name_is_one() -> None:
    assert all(is_name(part) for path in ODD for part in path.split("/"))

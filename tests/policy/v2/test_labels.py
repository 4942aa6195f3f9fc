"""Labels: what the hosted service takes is taken, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.v2.labels import read_filters, read_labels
from policy.violation import Reason, Violation
from tests.policy.tenants import refusal

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
NAMES = st.text(LETTERS, min_size=1, max_size=40)
# Unicode's classes of the contract's list: U+0000-001F, U+007F-009F, U+202A-202E, U+2066-2069.
UNSHOWN = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=[chr(number) for number in UNSHOWN]), max_size=64
)


def is_invalid(document: Any) -> bool:
    violation = refusal(read_labels, document)
    return (violation.reason, violation.details) == (Reason.METADATA_INVALID, "metadata")


@given(st.dictionaries(NAMES, TEXTS, max_size=16))
def test_labels_are_kept_as_they_are(labels: dict[str, str]) -> None:
    assert read_labels(labels) == labels
    assert read_labels(labels) is not labels, "what the client sent may change"


def test_no_labels_are_none() -> None:
    assert read_labels(None) == read_labels({}) == {}


@pytest.mark.parametrize("document", ["text", "", 0, False, True, [], ["a", "b"], 1.5])
def test_labels_are_an_object(document: Any) -> None:
    assert is_invalid(document)


def test_there_are_sixteen_at_most() -> None:
    assert len(read_labels({f"n{number}": "" for number in range(16)})) == 16
    assert is_invalid({f"n{number}": "" for number in range(17)})


@pytest.mark.parametrize(
    "name", ["", "x" * 41, "a b", "a/b", "a[b]", "ä", "a\n", "\na", "a\x00", "a:b", "\u0661", "\uff41"]
)
def test_a_name_is_of_few_characters(name: str) -> None:
    assert is_invalid({name: "x"})
    assert is_invalid({"fine": "x", name: "x"}), "one is enough"


@pytest.mark.parametrize("text", [None, 1, True, 1.5, [], {}, ["x"]])
def test_a_value_is_a_text(text: Any) -> None:
    assert is_invalid({"name": text})


@pytest.mark.parametrize(("character", "size"), [("x", 1), ("ä", 2), ("\u20ac", 3), ("\U0001f600", 4)])
def test_a_value_is_measured_in_utf8(character: str, size: int) -> None:
    most = character * (256 // size)
    assert read_labels({"name": most}) == {"name": most}
    assert is_invalid({"name": most + character})


@pytest.mark.parametrize("number", UNSHOWN)
def test_no_value_has_characters_that_are_not_seen(number: int) -> None:
    assert is_invalid({"name": f"a{chr(number)}b"})
    assert is_filter_refused(("metadata[name]", f"a{chr(number)}b"))


@pytest.mark.parametrize("text", ["", " ", "\u2028", "\u200f", "'; DROP TABLE jobs; --", '"', "\\", "%", "\ud7ff"])
def test_other_characters_are_taken(text: str) -> None:
    assert read_labels({"name": text}) == {"name": text}
    assert read_filters([("metadata[name]", text)]) == {"name": text}


def test_half_a_character_is_no_text() -> None:
    """No database takes it (RFC 3629, 3)."""
    assert is_invalid({"name": "\ud800"})
    assert is_filter_refused(("metadata[name]", "\ud800"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_document_is_labels_or_refused(document: Any) -> None:
    try:
        labels = read_labels(document)
    except Violation as violation:
        found: set[object] = {violation.reason}
    else:
        found = {type(text) for text in labels.values()}
    assert found <= {Reason.METADATA_INVALID} or found == {str}


def is_filter_refused(*query: tuple[str, str]) -> bool:
    violation = refusal(read_filters, query)
    return (violation.reason, violation.details) == (Reason.METADATA_FILTER_INVALID, "metadata")


@given(st.dictionaries(NAMES, TEXTS, max_size=3))
def test_filters_are_read_among_the_other_fields(wanted: dict[str, str]) -> None:
    query = [("limit", "3"), *((f"metadata[{name}]", text) for name, text in wanted.items()), ("cursor", "x")]
    assert read_filters(query) == wanted


@pytest.mark.parametrize(
    "key", ["metadata", "metadata[]x", "xmetadata[a]", "Metadata[a]", "metadata[a", "metadata.a", "[a]"]
)
def test_other_fields_are_no_filters(key: str) -> None:
    assert read_filters([(key, "x")]) == {}


@pytest.mark.parametrize(
    "key",
    ["metadata[]", "metadata[a b]", "metadata[a][b]", "metadata[a]]", "metadata[a\n]", "metadata[" + "x" * 41 + "]"],
)
def test_a_filter_that_finds_nothing_ever_is_refused(key: str) -> None:
    assert is_filter_refused((key, "x"))


def test_one_name_stands_for_one_value() -> None:
    assert read_filters([("metadata[a]", "x"), ("metadata[a]", "x")]) == {"a": "x"}
    assert is_filter_refused(("metadata[a]", "x"), ("metadata[a]", "y"))


def test_there_are_three_filters_at_most() -> None:
    four = [(f"metadata[{name}]", "x") for name in "abcd"]
    assert read_filters(four[:3]) == dict.fromkeys("abc", "x")
    assert is_filter_refused(*four)


def test_a_filters_value_is_no_longer_than_a_labels() -> None:
    assert read_filters([("metadata[a]", "x" * 256)]) == {"a": "x" * 256}
    assert is_filter_refused(("metadata[a]", "x" * 257))

"""What is read through holes is the document, byte for byte, with whatever stands in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.templates.holes import COMPARED_LEVELS, MAX_HOLES, Path, find_changes, make_holes, spelling_of

TEXTS = st.text(max_size=6) | st.sampled_from(['"', "\\", "a,b", "{", "}:", "\n", "\u2028", "é", "true", "0"])
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.just(-0.0)
SCALARS = TEXTS | NUMBERS | st.booleans() | st.none()
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
SPELLINGS = (
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, ensure_ascii=False).encode(),
    lambda value: json.dumps(value, separators=(",", ":")).encode(),
    lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(),
)


def scalars_in(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from scalars_in(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from scalars_in(inner, (*path, number))
    elif path:
        yield path


def put(document: Any, path: Path, value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


@st.composite
def holed(draw: st.DrawFn) -> Any:
    """A document, paths in it, and what comes there."""
    document = {"a": draw(DOCUMENTS), "b": draw(SCALARS), "c": draw(DOCUMENTS)}
    paths = draw(st.lists(st.sampled_from([*scalars_in(document)]), unique=True, min_size=1, max_size=5))
    return document, paths, [draw(SCALARS) for _ in paths]


@settings(max_examples=75)
@given(holed(), st.sampled_from(SPELLINGS))
def test_whatever_stands_in_the_holes_is_read(case: Any, spell: Any) -> None:
    document, paths, values = case
    holes = make_holes(copy.deepcopy(document), paths, spell)
    for path, value in zip(paths, values, strict=True):
        put(document, path, value)
    raw = spell(document)
    assert orjson.dumps(holes.read(raw)) == orjson.dumps(values)
    assert orjson.loads(holes.written(values)) == orjson.loads(raw)


@given(holed(), st.data())
def test_what_is_read_is_the_document_with_these_values(case: Any, data: st.DataObject) -> None:
    document, paths, _ = case
    raw = orjson.dumps(document)
    holes = make_holes(copy.deepcopy(document), paths)
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        until = min(len(changed), at + data.draw(st.integers(0, 4)))
        changed[at:until] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b',"', b'":', b"}", b"[1", b"0", b" ", b"1e5", b"\n"])
        )
    values = holes.read(bytes(changed))
    if values is not None:
        for path, value in zip(paths, values, strict=True):
            put(document, path, value)
        assert orjson.dumps(orjson.loads(bytes(changed))) == orjson.dumps(document)


@pytest.mark.parametrize(
    "standing",
    [b"[1]", b"{}", b'"a","b":"c"', b'"a"b"', b"1 2", b"01", b"+1", b".5", b"1.", b"NaN", b"Infinity", b"TRUE", b"",
     b" 1", b'"\xff"', b'"\\x"', b'"\\ud800"', b'"\n"', b"'a'", b"1,1", b'"a', b"--1", b"1e", b'"\\"'],
)  # fmt: skip
def test_what_is_no_scalar_does_not_fit(standing: bytes) -> None:
    holes = make_holes({"a": 1, "b": 2}, [("a",)])
    assert holes.read(b'{"a":7,"b":2}') == [7]
    assert holes.read(b'{"a":' + standing + b',"b":2}') is None


def test_another_document_does_not_fit() -> None:
    holes = make_holes({"a": 1, "b": 2}, [("a",)])
    for other in (b'{"a":1,"b":2', b'{"a":1,"b":2}}', b'{"a":1,"b":20}', b'{"a":1, "b":2}', b'{"b":2,"a":1}', b""):
        assert holes.read(other) is None


class Ends(dict[int, int]):
    """As `Holes.read` has them; read: how much of a document was read through for them."""

    read = 0

    def __setitem__(self, start: int, end: int) -> None:
        self.read += max(end - start, 1)
        super().__setitem__(start, end)


def test_a_scalar_is_read_through_once() -> None:
    """However many documents it is compared with that are like it up to there, or in other parts."""

    def document(number: int, first: str, second: str) -> dict[str, Any]:
        return {"a": first, "b": number, "c": second}

    known = [make_holes(document(number, "x", "y"), [("a",), ("c",)]) for number in range(8)]
    known.append(make_holes(document(8, "\n" * 9_000, "y"), [("c",)]))
    raw, ends = orjson.dumps(document(8, "\n" * 9_000, "\n" * 9_000)), Ends()
    assert [holes.read(raw, ends) for holes in known] == [None] * 8 + [["\n" * 9_000]]
    assert set(ends) == {raw.index(b'"\\n'), raw.rindex(b'"\\n')}
    assert 36_000 < ends.read < len(raw)


def test_where_no_scalar_is_none_is_looked_for_again() -> None:
    holes, ends = make_holes({"a": 1, "b": 2}, [("a",)]), Ends()
    assert [holes.read(b'{"a":[],"b":2}', ends) for _ in range(3)] == [None] * 3
    assert (ends, ends.read) == ({5: -1}, 1)


@pytest.mark.parametrize("path", [("c",), ("b", "x"), ("b",), ("d", 1), ("d", 0), ("e", 3)])
def test_there_is_a_hole_only_where_a_scalar_is(path: Path) -> None:
    with pytest.raises((LookupError, TypeError)):
        make_holes({"a": 1, "b": [], "d": [[]], "e": {"f": 1}}, [path])


@settings(max_examples=75)
@given(holed())
def test_changes_are_found_where_values_are_others(case: Any) -> None:
    document, paths, _ = case
    after = copy.deepcopy(document)
    for number, path in enumerate(paths):
        put(document, path, f"old {number}")
        put(after, path, f"new {number}")
    found = find_changes(document, after)
    assert found is not None
    assert set(found) == set(paths)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": [1]}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 2, "b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 3}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": None}, {"a": 1}),
        ({"a": False}, {"a": 5}),
        (1, 2),
        ({"a": {}}, {"a": [1]}),
        ([0] * (MAX_HOLES + 1), [1] * (MAX_HOLES + 1)),
    ],
)
def test_other_differences_than_values_are_none_that_holes_bridge(before: Any, after: Any) -> None:
    assert find_changes({"in": before} if before == 1 else before, {"in": [after]} if before == 1 else after) is None


def test_a_whole_number_is_like_another_number() -> None:
    assert find_changes({"a": 7}, {"a": 7.5}) == [("a",)]
    assert find_changes({"a": 7}, {"a": 7}) == []


class Counted:
    """A value that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return isinstance(other, Counted)

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("wrap", [lambda *inner: [*inner], lambda *inner: dict(zip("abcd", inner, strict=True))])
def test_however_deep_a_value_lies_it_is_compared_a_few_times(wrap: Any) -> None:
    levels = 200
    before, after = 1, 2
    for _ in range(levels):
        before, after = (wrap(Counted(), Counted(), Counted(), inner) for inner in (before, after))
    Counted.compared = 0
    found = find_changes(before, after)
    assert found is not None
    assert list(map(len, found)) == [levels]
    assert Counted.compared <= 3 * levels * (COMPARED_LEVELS + 1)


@given(DOCUMENTS, st.sampled_from(SPELLINGS))
def test_the_spellings_of_the_usual_libraries_are_known(inner: Any, spell: Any) -> None:
    document = {"a": inner}
    found = spelling_of(spell(document), document)
    assert found is not None
    assert found(document) == spell(document)


def test_other_spellings_are_not() -> None:
    document = {"a": [1, 2.5], "b": "x"}
    for raw in (json.dumps(document, indent=1).encode(), b'{"a":[1,2.50],"b":"x"}', b'{"a":[1,2.5],"b":"\\u0078"}'):
        assert orjson.loads(raw) == document
        assert spelling_of(raw, document) is None

"""Finding and changing keys in TOML text, in every spelling that TOML has for them."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.toml_keys import append_key, change_expiry, remove_key

WHEN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
NEW: dict[str, Any] = {"id": "new", "note": 'a "b" # [[keys]]\n'}
TEXTS = [
    '[[keys]]\nid = "a"\n[[keys]]\nid = "b"\n',
    '[[keys]]\nid = "a"\n\n\n[[keys]]\nid = "b"',
    '[[ keys ]] # [[keys]]\nid = "a"\n[["keys"]]\nid = "b"\n',
    "[['keys']]\nid = 'a'\n[x]\ny = 1\n[[keys]]\nid = 'b'\n",
    '[[keys]]\nid = "a"\nnote = """\n[[keys]]\n\\"""" # x\n[[keys]]\nid = "b"\n',
    '[[keys]]\nid = "a"\nnote = """a"""""\n[[keys]]\nid = "b"\n',
    "[[keys]]\nid = \"a\"\nnote = '''\n[[keys]]\n''''\n[[keys]]\nid = \"b\"\n",
    '[[keys]]\nid = "a"\nnote = "#[\\"[["\n[[keys]]\nid = "b"\nscopes = [ # ]\n "x", # [[keys]]\n]\n',
    '[[keys]]\nid = "a"\nexpires = 2029-01-01T00:00:00Z # soon\n# [[keys]]\n\n# for b\n[[keys]]\nid = "b"\n',
    '[[keys]]\nid = "a"\nlimits.x = { y = [1] }\n[[keys]]\nid = "b"\n[other.keys]\n[[others]]\nkeys = 1\n',
    'keys = [{id = "a"}, {id = "b"}]\n',
    '"keys" = [\n  {id = "a"}, # [\n  {id = "b"} # last\n]\n[x]\nkeys = [1]\n',
    'y = "keys"\nkeys=[ { id="a" }\n, { id="b" } ]',
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("text", TEXTS)
def test_edits_mean_what_they_should(text: str, newline: str) -> None:
    text = text.replace("\n", newline)
    before = tomllib.loads(text)
    one, two = before["keys"]

    def keys_of(changed: str) -> list[Any]:
        document = tomllib.loads(changed)
        assert {**document, "keys": before["keys"]} == before
        return list(document.get("keys", []))

    assert keys_of(append_key(text, NEW)) == [one, two, NEW]
    assert keys_of(remove_key(text, 0)) == [two]
    assert keys_of(remove_key(text, 1)) == [one]
    assert keys_of(remove_key(remove_key(text, 0), 0)) == []
    assert keys_of(change_expiry(text, 0, WHEN)) == [{**one, "expires": WHEN}, two]
    assert keys_of(change_expiry(text, 1, WHEN)) == [one, {**two, "expires": WHEN}]
    assert keys_of(append_key(remove_key(remove_key(text, 1), 0), NEW)) == [NEW]


@pytest.mark.parametrize(
    "text", ["", "\n", "# only this", "x = 1", "keys = []", "keys = [\n # none\n]\nx = 1\n", "[x]\n\n"]
)
def test_the_first_key(text: str) -> None:
    expected = {**tomllib.loads(text), "keys": [NEW]}
    assert tomllib.loads(append_key(text, NEW)) == expected


def test_comments_stay_with_what_they_are_about() -> None:
    text = '# top\n[[keys]]\nid = "a"\n# role = "admin"\n\n# for b\n[[keys]]\nid = "b"\n# limits\n[limits]\n'
    assert remove_key(text, 0) == '# top\n# for b\n[[keys]]\nid = "b"\n# limits\n[limits]\n'
    assert remove_key(text, 1) == '# top\n[[keys]]\nid = "a"\n# role = "admin"\n\n# for b\n# limits\n[limits]\n'
    added = append_key(text, {"id": "c"})
    assert added == text.replace("# limits", '\n[[keys]]\nid = "c"\n\n# limits')


VALUES = st.lists(
    st.sampled_from(
        [
            "role{n} = {n}\n",
            "note{n} = '''\n[[keys]]\n# {n}'''\n",
            "scopes{n} = [ # [[keys]]\n  {n}, # ]\n]\n",
            "# in {n}\n",
            'text{n} = "{n} # \\" [["\n',
        ]
    ),
    max_size=3,
)
TABLE = st.tuples(st.booleans(), st.booleans(), VALUES, st.integers(0, 2))


class Piece(NamedTuple):
    """A table as it stands in a file, and what stands around it. No line but an empty one comes twice."""

    above: str
    own: str
    below: str
    is_key: bool


@st.composite
def files(draw: st.DrawFn) -> list[Piece]:
    pieces = [Piece("# top\n", "port = 1\n", "\n", False)]
    for number, (is_key, has_comment, values, empty) in enumerate(draw(st.lists(TABLE, min_size=1, max_size=6))):
        head = f'[[keys]] # {number}\nid = "{number}"\n' if is_key else f"[table{number}]\nx = {number}\n"
        own = head + "".join(value.format(n=f"1{number}{place}") for place, value in enumerate(values))
        above = f"# above {number}\n" if has_comment else ""
        # A comment right above the next table is the next table's.
        pieces.append(Piece(above, own + f"end = {number}\n", "\n" * (empty or 1), is_key))
    return pieces


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@given(files(), st.sampled_from(["\n", "\r\n"]))
def test_no_edit_changes_another_line(pieces: list[Piece], newline: str) -> None:
    text = "".join(above + own + below for above, own, below, _ in pieces).replace("\n", newline)
    added = append_key(text, {"id": "new"})
    assert added.replace(f'[[keys]]{newline}id = "new"{newline}', "", 1).split() == text.split()
    for index, piece in enumerate([piece for piece in pieces if piece.is_key]):
        others = lines_of("".join(p.above + ("" if p is piece else p.own) for p in pieces))
        assert lines_of(remove_key(text, index)) == others
        changed = lines_of(change_expiry(text, index, WHEN))
        assert [line for line in changed if line != "expires = 2030-01-02T03:04:05Z"] == lines_of(text)

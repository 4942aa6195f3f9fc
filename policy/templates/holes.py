"""A JSON document as its bytes, with holes where some of its strings, numbers and the like stood.

SECURITY: what stands in a hole is one scalar (RFC 8259, 3), and everything else is the same byte for byte, so a document that fits is the one that was
read before with these values in it, and need not be read again (tests/policy/templates/test_holes.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import orjson

Path = tuple[str | int, ...]
"""From the document to one of its values: names of members, numbers of elements."""
_Place: TypeAlias = "tuple[_Place | None, str | int]"
"""The same as the place that holds it, and the last step."""
Spell = Callable[[Any], bytes]

MAX_HOLES: Final = 200
COMPARED_LEVELS: Final = 3
"""Down to here, which is that of a node's inputs, parts are compared as wholes: that is fast, and most are equal."""
_SCALAR: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*|true|false|null', re.DOTALL)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_NUMBERS: Final = frozenset({int, float})
_CONTAINERS: Final = frozenset({dict, list})
_SPACED: Final = re.compile(rb'\{"[^"\\]*": ')


@dataclass(frozen=True, slots=True)
class Holes:
    """pieces: what stands before each hole, and at the end. order: of the holes as they were asked for, by where they stand."""

    pieces: tuple[bytes, ...]
    order: tuple[int, ...]

    def read(self, raw: bytes, ends: dict[int, int] | None = None) -> list[Any] | None:
        """What stands in the holes, as they were asked for; None for another document.

        ends: of the scalars of this document that were read already, by where they begin; -1 where there is none. SECURITY: what differs from several
        documents behind a long text would have it read through for each of them (test_holes.py::test_a_scalar_is_read_through_once).
        """
        pieces, found = self.pieces, []
        ends = {} if ends is None else ends
        # The end first: of workflows that begin alike none is read through that ends otherwise.
        if not raw.endswith(pieces[-1]) or not raw.startswith(pieces[0]):
            return None
        at = len(pieces[0])
        for piece in pieces[1:]:
            end = ends.get(at)
            if end is None:
                scalar = _SCALAR.match(raw, at)
                end = ends[at] = -1 if scalar is None else scalar.end()
            if end < 0 or not raw.startswith(piece, end):
                return None
            found.append(raw[at:end])
            at = end + len(piece)
        return self._values(found) if at == len(raw) else None

    def _values(self, found: Sequence[bytes]) -> list[Any] | None:
        try:
            # All at once: none of them reaches into the next, whatever is between its quotation marks.
            read = orjson.loads(b"[%s]" % b",".join(found))
        except orjson.JSONDecodeError:
            return None
        values: list[Any] = [None] * len(found)
        for place, value in zip(self.order, read, strict=True):
            values[place] = value
        return values

    def written(self, values: Sequence[Any]) -> bytes:
        """The document with these values."""
        parts = [self.pieces[0]]
        for place, piece in zip(self.order, self.pieces[1:], strict=True):
            parts += (orjson.dumps(values[place]), piece)
        return b"".join(parts)


def make_holes(document: Any, paths: Sequence[Path], spell: Spell = orjson.dumps) -> Holes:
    """document: is written with holes at these paths, and is changed by that. Raises LookupError, TypeError for a path that is not there."""
    # Nobody writes a text in which its own hash stands.
    mark = blake2b(orjson.dumps(document), digest_size=16).hexdigest()
    for number, path in enumerate(paths):
        place = document
        for step in path[:-1]:
            place = place[step]
        if type(place[path[-1]]) not in _SCALARS:
            raise TypeError("no scalar")
        place[path[-1]] = f"{mark}:{number}"
    parts = re.split(rf'"{mark}:([0-9]+)"'.encode(), spell(document))
    return Holes(tuple(parts[::2]), tuple(map(int, parts[1::2])))


def find_changes(before: Any, after: Any) -> list[Path] | None:
    """Paths to the scalars in which two documents differ; None where they differ in more than MAX_HOLES, or in anything else.

    What compares as equal counts as equal: true and 1 among it.
    """
    found: list[Path] = []
    waiting: list[tuple[_Place | None, int, Any, Any]] = [(None, 0, before, after)]
    while waiting:
        place, level, old, new = waiting.pop()
        steps: Iterable[str | int]
        olds: Iterable[Any]
        news: Iterable[Any]
        if type(old) is dict and type(new) is dict and [*old] == [*new]:
            steps, olds, news = old, old.values(), new.values()
        elif type(old) is list and type(new) is list and len(old) == len(new):
            steps, olds, news = range(len(old)), old, new
        elif place is not None and len(found) < MAX_HOLES and is_like(old, new):
            found.append(_path_of(place))
            continue
        else:
            return None
        # SECURITY: what lies deep would be compared, and its path written, once for each of its levels
        # (test_holes.py::test_however_deep_a_value_lies_it_is_compared_a_few_times).
        is_deep = level >= COMPARED_LEVELS
        waiting += [
            ((place, step), level + 1, was, now)
            for step, was, now in zip(steps, olds, news, strict=True)
            if (is_deep and type(was) in _CONTAINERS) or was != now
        ]
    return found


def _path_of(place: _Place | None) -> Path:
    steps = []
    while place is not None:
        place, step = place
        steps.append(step)
    return tuple(reversed(steps))


def is_like(old: Any, new: Any) -> bool:
    """Whether both are texts, or numbers, or truth values: a whole number is like any other."""
    return type(old) in _SCALARS and (type(old) is type(new) or {type(old), type(new)} == _NUMBERS)


def spelling_of(raw: bytes, document: Any) -> Spell | None:
    """How a client has written a document, as far as that is a way in which libraries write; None for another."""
    if orjson.dumps(document) == raw:  # as JSON.stringify does
        return orjson.dumps
    separators = (", ", ": ") if _SPACED.match(raw) else (",", ":")
    spell = partial(_spell_as_json_does, separators=separators, ensure_ascii=raw.isascii())
    return spell if spell(document) == raw else None


def _spell_as_json_does(document: Mapping[str, Any], separators: tuple[str, str], *, ensure_ascii: bool) -> bytes:
    text = json.dumps(document, separators=separators, ensure_ascii=ensure_ascii)
    return text.encode()

"""Reads a large JSON object member by member, so that the whole of it is never there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()


def each_member(text: str) -> Iterator[tuple[str, Any]]:
    """Name and value, in turn; a name that comes twice comes twice. Raises ValueError, in its midst too, for what is no JSON object.

    Numbers and constants are read as Python writes them, as NaN.
    """
    at = _after(text, 0, "{")
    mark = "" if text.startswith("}", at) else ","
    while mark:
        name, at = _read(text, at)
        if type(name) is not str:
            raise ValueError("a name is a text")
        value, at = _read(text, _after(text, at, ":"))
        yield name, value
        mark = "," if text.startswith(",", at) else ""
        at = _after(text, at, mark)
    if _after(text, at, "}") != len(text):
        raise ValueError("there is more behind it")


def _read(text: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    return value, _skip(text, end)


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise ValueError(f"{mark} is missing at {at}")
    return _skip(text, at + len(mark))


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None, "it may be empty"
    return found.end()

"""Reads a client's JSON so that it has one meaning only. Trusts nothing; what it returns is what is judged and what is sent."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import orjson

from policy.violation import Reason, Violation

# orjson writes at most this many levels, and what ComfyUI does with a document stays shallow.
MAX_DEPTH: Final = 254
# Commas, brackets and braces bound what parsing costs: 8 MiB of "[]," would take half a second.
MAX_PARTS: Final = 250_000

_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")


def parse_json(body: bytes, max_depth: int = MAX_DEPTH, max_parts: int = MAX_PARTS) -> Any:
    """The value of a JSON document (RFC 8259), read strictly.

    Raises Violation(body-malformed) for duplicate keys, NaN and infinities, other encodings than UTF-8, a byte order mark,
    lone surrogates, more than `max_depth` levels (arrays and objects) and documents of more than `max_parts` parts.
    """
    check_parts(body, max_parts)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed("The body must be a JSON document in UTF-8.", str(error)) from None
    try:
        written = orjson.dumps(value)
    except TypeError:
        raise _too_deep(MAX_DEPTH) from None
    if max_depth < MAX_DEPTH and is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    # SECURITY: two programs read two values from {"a":1,"a":2}. A parser keeps one of them, so a document with duplicates has
    # lost colons (test_document.py::test_duplicate_keys_are_refused). Colons in strings are the same on both sides, but for escapes.
    if written.count(b":") != body.count(b":") + _count_escaped_colons(body):
        raise _malformed("The JSON document has an object with duplicate keys.", "name each key once")
    return value


def holds(document: bytes, part: bytes) -> bool:
    """`part in document`, which tries `part` as a number first: that it is none takes longer than to search most documents."""
    return document.find(part) >= 0


def has_escaped_ascii(body: bytes) -> bool:
    """Whether a letter, a digit or a sign of ASCII may stand in a JSON document as `\\uXXXX` (RFC 8259, 7). Clients that escape all others have none."""
    return holds(body, b"\\") and holds(body, b"\\u00") and _ESCAPED_ASCII.search(body) is not None


def check_parts(body: bytes, max_parts: int) -> None:
    """Raises Violation(body-malformed) for a document of more than `max_parts` parts; it is not read for that."""
    if len(body) > max_parts and body.count(b",") + body.count(b"[") + body.count(b"{") > max_parts:
        raise _malformed("The JSON document has too many parts.", f"at most {max_parts} values")


def read_upstream_json(text: bytes | str) -> Any:
    """The value of what ComfyUI wrote, None when it is no JSON.

    SECURITY: Python writes NaN, infinities, numbers of any length and lone surrogates, which no strict parser reads, and a tenant gets
    them into its results. Read here as null, a float, null and "?": else one job hides the history of all (tests/security/test_unreadable.py).
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        value = json.loads(text, parse_constant=lambda _: None, parse_int=_read_int, parse_float=_read_float)  # noqa: TID251 - for what orjson refuses
        return orjson.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _read_int(text: str) -> int | float | None:
    return int(text) if len(text) < 19 else _read_float(text)


def _read_float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def is_deeper(value: Any, max_depth: int) -> bool:
    """Whether arrays and objects nest deeper than `max_depth`."""
    level = [value]
    for _ in range(max_depth + 1):
        level = [item for item in level if type(item) is dict or type(item) is list]
        if not level:
            return False
        level = [inner for item in level for inner in (item.values() if type(item) is dict else item)]
    return True


def _count_escaped_colons(body: bytes) -> int:
    # A search for one character is ten times as fast as one for several.
    if b"\\" not in body or b"\\u003" not in body:
        return 0
    # Without pairs of backslashes, what is left before "u003a" is an escape and not a backslash in the text.
    bare = body.replace(b"\\\\", b"")
    return bare.count(b"\\u003a") + bare.count(b"\\u003A")


def _malformed(message: str, details: str) -> Violation:
    return Violation(Reason.BODY_MALFORMED, message, details)


def _too_deep(max_depth: int) -> Violation:
    return _malformed("The JSON document nests too deeply.", f"at most {max_depth} levels")

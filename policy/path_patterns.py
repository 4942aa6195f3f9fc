"""Path patterns of routes: literal segments, `{name}` for one segment, `{name...}` for all that remain. The grammar, and what two have in common."""

from __future__ import annotations

import re
from typing import Final

Pattern = tuple[str, ...]

API: Final = "api"
_LITERAL = re.compile(r"(?!\.)[A-Za-z0-9._~-]+")
_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)(\.\.\.)?\}")
_GLOB = re.compile(r"[*?\[\]]")


def parse_pattern(text: str) -> Pattern:
    """The segments of a pattern as an operator writes it. Raises ValueError with a sentence that says what to write."""
    if not text.startswith("/"):
        raise ValueError('write a path from the root, such as "/pack/list"')
    if _GLOB.search(text):
        raise ValueError(
            "write {name} for one segment, and {name...} at the end for all that remain; * and ? mean nothing here"
        )
    segments = tuple(text[1:].split("/"))
    names: list[str] = []
    for index, segment in enumerate(segments):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            _check_literal(segment)
            continue
        if parameter[2] and index != len(segments) - 1:
            raise ValueError(f"{segment} stands for all that remains, so it comes last")
        names.append(parameter[1])
    if len(set(names)) != len(names):
        raise ValueError("two parameters have one name")
    if is_parameter(segments[0]) or (segments[0] == API and (len(segments) == 1 or is_parameter(segments[1]))):
        raise ValueError("the first segment is a name: a pattern that begins with a parameter would open everything")
    return segments


def _check_literal(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise ValueError("empty, '.' and '..' segments are not accepted in a path")
    if segment.startswith("."):
        raise ValueError(f"{segment!r} begins with a dot: hidden files and folders are not opened")
    if not _LITERAL.fullmatch(segment):
        raise ValueError(f"{segment!r} is no segment: letters, digits, '-', '_', '.', '~', or a parameter as {{name}}")


def is_parameter(segment: str) -> bool:
    return segment.startswith("{")


def is_rest(segment: str) -> bool:
    return segment.endswith("...}")


def meet(one: Pattern, other: Pattern) -> bool:
    """Whether some path matches both."""
    if not one or not other:
        return not one and not other
    if is_rest(one[0]) or is_rest(other[0]):
        return True  # either takes whatever is left of the other, which is at least a segment
    if not is_parameter(one[0]) and not is_parameter(other[0]) and one[0] != other[0]:
        return False
    return meet(one[1:], other[1:])


def spellings(pattern: Pattern, *, is_doubled: bool) -> tuple[Pattern, ...]:
    """A route's patterns as ComfyUI serves it: it doubles the routes of its main table under /api (server.py, add_routes)."""
    return (pattern, (API, *pattern)) if is_doubled else (pattern,)

"""The head of an answer as bytes (RFC 9112, 4 and 5)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_BODY: Final = frozenset({204, 304})
_PAIR: Final = ": ".join
_LINE_END: Final = "\r\n"
_BY_LENGTH: Final = "Content-Length: {}\r\n"
_LENGTH: Final = "content-length"

INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class SharedFields(NamedTuple):
    """Header fields that many answers have, written once. text: their lines. length: that of the body, as they say it; None where they do not."""

    fields: tuple[tuple[str, str], ...]
    text: str
    length: str | None


def shared_fields(fields: Collection[tuple[str, str]]) -> SharedFields:
    """Raises ValueError for a field that would end its line."""
    return SharedFields(tuple(fields), _lines_of(fields), length_in(fields))


def length_in(fields: Iterable[tuple[str, str]]) -> str | None:
    """The Content-Length, as it stands there."""
    return next((value for name, value in fields if name.lower() == _LENGTH), None)


class _Clock:
    """The field `Date` (RFC 9110, 6.6.1), written once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


_clock: Final = _Clock()


def has_body(method: str, status: int) -> bool:
    """Whether a body follows the head of this answer (RFC 9112, 6.3)."""
    return method != "HEAD" and status >= 200 and status not in _WITHOUT_BODY


def head_bytes(
    status: int, reason: str, fields: Iterable[tuple[str, str]], more: str = "", shared: SharedFields | None = None
) -> bytes:
    """more: further lines, each with its end. reason: the standard phrase when empty. Raises ValueError for a field that would end its line."""
    first = f"HTTP/1.1 {status} {reason}\r\n" if reason else _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    text = _lines_of(fields) if shared is None else shared.text + _lines_of(fields)
    return f"{first}{text}{_clock.line()}{more}\r\n".encode("utf-8", "surrogateescape")


def _lines_of(fields: Iterable[tuple[str, str]]) -> str:
    """Raises ValueError for a field that would end its line."""
    lines = [*map(_PAIR, fields), ""]
    text = _LINE_END.join(lines)
    # SECURITY: one line per field, whatever a value holds (RFC 9112, 2.2). test_response_head.py
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines):
        raise ValueError("a header field holds the end of a line")
    return text


def length_line(size: int) -> str:
    return _BY_LENGTH.format(size)

"""A multipart body from bytes (RFC 2046, 5.1.1; RFC 7578). Sans-I/O; content passes uncopied, and memory is bounded.

Delimiter lines may be padded with spaces, and text may stand before the first and behind the last one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Protocol

from multidict import CIMultiDict

from policy.rules.uploads import FIELDS
from proxy.http.multipart_part import MAX_PART_HEADER_BYTES, Part, malformed

MAX_PART_HEADERS: Final = 32
MAX_PREAMBLE_BYTES: Final = 8 * 1024
MAX_PADDING_BYTES: Final = 1024
_PREAMBLE, _HEAD, _CONTENT, _EPILOGUE = range(4)
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_AFTER_DELIMITER: Final = re.compile(rb"(?:(--|-?\Z)|[ \t]{%d}|[ \t]*+(\r\n|\r?\Z))" % (MAX_PADDING_BYTES + 1))
"""What makes a line of it: its end, the end of the body, or either still to come; or more padding than may be. All else is content."""
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class PartReceiver(Protocol):
    """Whom the reader tells what it reads, in order. What they raise ends the reading."""

    def part_begun(self, part: Part) -> None:
        """A part's head, whole."""

    def part_data(self, data: bytes) -> None:
        """Some of its content."""

    def part_ended(self) -> None: ...


class MultipartReader:
    """is_ended: the closing delimiter has come; what follows it is thrown away. Raises Violation(body-malformed)."""

    def __init__(self, boundary: bytes, receiver: PartReceiver, texts: Collection[str] = FIELDS) -> None:
        """texts: see Part."""
        self._texts = texts
        self._delimiter = b"\r\n--" + boundary
        self._receiver = receiver
        self._state = _PREAMBLE
        # A body may begin with its delimiter: what is before it is a line's end that was never sent.
        self._held = _LINE_END
        self._preamble_bytes = 0

    @property
    def is_ended(self) -> bool:
        return self._state == _EPILOGUE

    def feed(self, chunk: bytes) -> None:
        data = self._held + chunk if self._held else chunk
        self._held = b""
        while data and self._state != _EPILOGUE:
            rest = self._read_head(data) if self._state == _HEAD else self._read_content(data)
            if rest is None:
                return
            data = rest

    def _read_head(self, data: bytes) -> bytes | None:
        """What follows the head; None when more has to come."""
        if data.startswith(_LINE_END):  # no field at all
            end, lines = len(_LINE_END), []
        else:
            at = data.find(_HEAD_END)
            if at < 0 or at > MAX_PART_HEADER_BYTES:
                if len(data) > MAX_PART_HEADER_BYTES:
                    raise malformed(f"the headers of a part have at most {MAX_PART_HEADER_BYTES} bytes")
                self._held = data
                return None
            end, lines = at + len(_HEAD_END), data[:at].split(_LINE_END)
        self._receiver.part_begun(Part(_fields_of(lines), self._texts))
        self._state = _CONTENT
        return data[end:]

    def _read_content(self, data: bytes) -> bytes | None:
        """What follows the next delimiter line; None when more has to come."""
        at, found = self._find_line(data)
        if found is None:
            keep = self._begins_at(data)
            self._pass(data[:keep] if keep < len(data) else data)
            self._held = data[keep:]
            return None
        said = found[1] if found[1] is not None else found[2]
        if said is None:
            raise malformed("the padding of a boundary is too long")
        self._pass(data[:at])
        if len(said) < len(_LINE_END):  # what follows the delimiter has not come yet
            self._held = data[at:]
            return None
        self._end_part()
        self._state = _HEAD if said == _LINE_END else _EPILOGUE
        return data[found.end() :]

    def _find_line(self, data: bytes) -> tuple[int, re.Match[bytes] | None]:
        """Where the first delimiter line begins, and what follows its delimiter; None where there is none."""
        # SECURITY: what only looks like one is passed over where it stands: to cut it off copies all the rest, each time (test_multipart_reader.py).
        # Most of a large file has none: searched from its end it takes half the time.
        at = data.find(self._delimiter) if data.rfind(self._delimiter) >= 0 else -1
        while at >= 0:
            end = at + len(self._delimiter)
            found = _AFTER_DELIMITER.match(data, end)
            if found is not None:
                return at, found
            at = data.find(self._delimiter, end)
        return at, None

    def _begins_at(self, data: bytes) -> int:
        """Where at its end the delimiter may begin; its length, where it does not."""
        at = data.rfind(b"\r", max(0, len(data) - len(self._delimiter) + 1))
        return at if at >= 0 and self._delimiter.startswith(data[at:]) else len(data)

    def _pass(self, data: bytes) -> None:
        if self._state == _CONTENT:
            if data:
                self._receiver.part_data(data)
            return
        self._preamble_bytes += len(data)
        if self._preamble_bytes > MAX_PREAMBLE_BYTES:
            raise malformed("there is too much before the first boundary")

    def _end_part(self) -> None:
        if self._state == _CONTENT:
            self._receiver.part_ended()


def _fields_of(lines: list[bytes]) -> CIMultiDict[str]:
    if len(lines) > MAX_PART_HEADERS:
        raise malformed(f"a part has at most {MAX_PART_HEADERS} headers")
    fields: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise malformed("a header of a part is none")
        try:
            fields.add(name.decode("ascii"), value.strip(b" \t").decode("utf-8"))
        except UnicodeDecodeError:
            raise malformed("the headers of a part must be UTF-8") from None
    return fields

"""Delimiter lines of multipart bodies as RFC 2046, 5.1.1 allows them: behind a preamble, and padded with spaces. The parser behind reads neither."""

from __future__ import annotations

from typing import Final

MAX_PREAMBLE_BYTES: Final = 8 * 1024
MAX_PADDING_BYTES: Final = 1024


class LineTidier:
    """The bytes of a body without its preamble and without padding behind its delimiters, as they come. Memory is bounded.

    Raises ValueError for a preamble or a padding that is too long.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # A body may begin with its delimiter: what is before it is a line's end that was never sent.
        self._held = b"\r\n"
        self._is_begun = False
        self._preamble_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """What of the body can go on by now."""
        data = self._held + chunk
        at = data.find(self._delimiter)
        keep = len(self._delimiter) - 1
        if at < 0 and self._is_begun and len(data) > keep:  # nearly all of a large file: copied as seldom as can be
            self._held = data[-keep:]
            return data[:-keep]
        out = bytearray()
        while True:
            at = data.find(self._delimiter)
            if at < 0:
                keep = min(len(data), len(self._delimiter) - 1)
                self._pass(out, data[: len(data) - keep])
                data = data[len(data) - keep :]
                break
            end = at + len(self._delimiter)
            rest = data[end:]
            padding = len(rest) - len(rest.lstrip(b" \t"))
            if padding > MAX_PADDING_BYTES:
                raise ValueError("the padding of a boundary is too long")
            if padding == len(rest):
                self._pass(out, data[:at])
                data = data[at:]  # what follows the delimiter has not come yet
                break
            self._pass(out, data[:at])
            # Padding ends with the line; anything else behind a boundary belongs to a longer text, which the parser judges.
            skipped = padding if rest[padding : padding + 1] == b"\r" else 0
            out += self._delimiter if self._is_begun else self._delimiter[2:]
            self._is_begun = True
            data = rest[skipped:]
        self._held = data
        return bytes(out)

    def finish(self) -> bytes:
        """What was still held when the body ended."""
        held, self._held = self._held, b""
        return held if self._is_begun else b""

    def _pass(self, out: bytearray, data: bytes) -> None:
        if self._is_begun:
            out += data
            return
        self._preamble_bytes += len(data)
        if self._preamble_bytes > MAX_PREAMBLE_BYTES:
            raise ValueError("there is too much before the first boundary")

"""RFC 6455, 5: WebSocket frames as bytes, for both sides and without any I/O. Reads each byte once, and copies a payload once."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

PROTOCOL_ERROR: Final = 1002
NOT_UTF8: Final = 1007
TOO_BIG: Final = 1009

MAX_CONTROL_BYTES: Final = 125
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_NEVER_SENT: Final = frozenset({1004, 1005, 1006})
_SMALL_BYTES: Final = 1024
_HEAD_16: Final = Struct("!BBH")
_unpack_head_16: Final = _HEAD_16.unpack_from
_HEAD_64: Final = Struct("!BBQ")
_KNOWN: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_OF_MESSAGES: Final = frozenset({_FIN | CONTINUATION, _FIN | TEXT, _FIN | BINARY, CONTINUATION, TEXT, BINARY})
"""First bytes that nothing is wrong with by themselves."""
_WHOLE: Final = frozenset({_FIN | TEXT, _FIN | BINARY})
_NONE: Final[frozenset[int]] = frozenset()


Payload = bytes | memoryview
"""A view where much was read at once: a picture is not copied. It is of what the next read writes over: who wants it for longer copies it."""
Take = Callable[[int, Payload, Payload | None], None]
"""Gets (TEXT | BINARY, message), (CLOSE | PING | PONG, payload), and (CONTINUATION, b"") for each fragment that ends no message; and with a message that
came at once, in one frame of a server's, that frame, which a client may be sent as it is.
"""


class FrameError(Exception):
    """The peer broke the protocol. code: what the connection is closed with (RFC 6455, 7.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Pieces:
    """Bytes that come in pieces. Small ones are put together as they come, so that many cost no more than their bytes."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        parts = self._parts
        if parts and len(data) < _SMALL_BYTES and len(parts[-1]) < _SMALL_BYTES:
            parts[-1] += data
        elif data:
            parts.append(data)

    def join(self) -> bytes:
        return b"".join(self._parts)


class FrameReader:
    """What a peer sends, as messages and control frames. is_masked: it is a client (5.1). max_bytes: of one message, all its fragments."""

    __slots__ = (
        "_fragments",
        "_head",
        "_is_masked",
        "_kind",
        "_mask",
        "_max_bytes",
        "_missing",
        "_opcode",
        "_partial",
        "_whole",
    )

    def __init__(self, *, is_masked: bool, max_bytes: int) -> None:
        self._is_masked = is_masked
        self._whole = _NONE if is_masked else _WHOLE
        """First bytes of frames that are messages as they are."""
        self._max_bytes = max_bytes
        self._head = b""
        """Of a frame, as far as it has come."""
        self._opcode = 0
        """First byte of the frame of which some is still to come."""
        self._mask = b""
        self._missing = 0
        """So many bytes of that frame's payload are still to come."""
        self._partial: Pieces | None = None
        self._kind = CONTINUATION
        """Opcode of the message whose fragments are being read."""
        self._fragments: Pieces | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing was begun that is not whole."""
        return not self._head and self._partial is None and self._fragments is None

    def drop(self) -> None:
        """Forgets what is not whole: nothing is fed any more."""
        self._head, self._partial, self._fragments = b"", None, None

    def feed(self, data: Payload, take: Take) -> None:
        """take: called with whatever is whole with these bytes, and done with them when it returns; what it is not done with it copies.

        Raises FrameError at the frame that breaks the protocol, and what `take` raises; nothing may be fed after that.
        """
        if self._partial is not None or self._head:
            data = self._go_on(data, take)
        at, end = 0, len(data)
        if end >= 4:  # almost all that ComfyUI sends: one message, whole, and nothing else
            first, size, long_size = _unpack_head_16(data)
            if size == 126 and long_size == end - 4 <= self._max_bytes and first in self._whole:
                take(first & 0x0F, data[4:], data)
                return
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if size == 126 and first in self._whole and end - at >= 4:
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            elif size > 125 or first not in self._whole:
                size, start = self._read_head(data, at, first, size)
            if start > end:
                break
            if size > self._max_bytes:
                raise self._too_big()
            stop = start + size
            if stop > end:
                self._begin(first, stop - end, data[start:])
                return
            if first in self._whole:
                take(first & 0x0F, data[start:stop], data[at:stop])
            else:
                take(*self._finish(first, data[start:stop]), None)
            at = stop
        if at < end:
            self._head = bytes(data[at:])

    def _go_on(self, data: Payload, take: Take) -> Payload:
        """With the frame that has begun. What of the data is to be read from its beginning."""
        partial = self._partial
        if partial is None:
            head, self._head = self._head, b""
            return head + data
        missing = self._missing
        partial.add(bytes(data[:missing]))
        if len(data) < missing:
            self._missing -= len(data)
            return b""
        self._partial = None
        take(*self._finish(self._opcode, partial.join()), None)
        return data[missing:]

    def _begin(self, first: int, missing: int, payload: Payload) -> None:
        """With a frame that is not whole."""
        self._opcode, self._missing = first, missing
        self._partial = Pieces()
        self._partial.add(bytes(payload))

    def _read_head(self, data: Payload, at: int, first: int, size: int) -> tuple[int, int]:
        """How large the payload is that belongs to the head at `at`, and where it begins: beyond the end of data where the head is not whole.

        first, size: the two bytes that it begins with. Raises FrameError.
        """
        is_masked, size, start = size >= _MASKED, size & 0x7F, at + 2
        if first not in _OF_MESSAGES or is_masked != self._is_masked:
            self._check(first, is_masked, size)
        if size > 125:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start], "big")
        if is_masked:
            start += 4
            self._mask = bytes(data[start - 4 : start])
        if start <= len(data):
            if size >> 63:
                raise FrameError(PROTOCOL_ERROR, "a frame's length has its highest bit set")
            if self._fragments is not None and first & 0x0F < CLOSE and self._fragments.size + size > self._max_bytes:
                raise self._too_big()
        return size, start

    def _too_big(self) -> FrameError:
        return FrameError(TOO_BIG, f"a message may have {self._max_bytes} bytes")

    def _check(self, first: int, is_masked: bool, size: int) -> None:
        """5.2, 5.4 and 5.5: everything that two bytes may be wrong in. size: of seven bits."""
        opcode = first & 0x0F
        if first & _RESERVED:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        if opcode not in _KNOWN:
            raise FrameError(PROTOCOL_ERROR, f"the opcode {opcode} is reserved")
        if is_masked != self._is_masked:
            raise FrameError(PROTOCOL_ERROR, "a client masks its frames, and a server does not")
        if opcode >= CLOSE and (size > MAX_CONTROL_BYTES or not first & _FIN):
            raise FrameError(PROTOCOL_ERROR, f"a control frame has at most {MAX_CONTROL_BYTES} bytes, in one fragment")

    def _finish(self, first: int, payload: Payload) -> tuple[int, Payload]:
        """A whole frame came. Raises FrameError when its kind may not come now."""
        if self._is_masked and payload:
            payload = masked(payload, self._mask)
        opcode = first & 0x0F
        if opcode >= CLOSE:
            return opcode, payload
        fragments = self._fragments
        if (opcode == CONTINUATION) != (fragments is not None):
            raise FrameError(PROTOCOL_ERROR, "a fragment came that continues nothing, or a message inside of another")
        is_last = first & _FIN
        if fragments is None:
            if is_last:
                return opcode, payload
            fragments = self._fragments = Pieces()
            self._kind, self._whole = opcode, _NONE
        fragments.add(bytes(payload))
        if not is_last:
            return CONTINUATION, b""
        self._fragments, self._whole = None, _NONE if self._is_masked else _WHOLE
        return self._kind, fragments.join()


def masked(payload: Payload, mask: bytes) -> bytes:
    """5.3: masks, or takes the mask off again. mask: 4 bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def head_of(opcode: int, size: int) -> bytes:
    """5.2: of one whole frame of `size` bytes that is not masked."""
    if size < 126:
        return bytes((_FIN | opcode, size))
    if size < 65536:
        return _HEAD_16.pack(_FIN | opcode, 126, size)
    return _HEAD_64.pack(_FIN | opcode, 127, size)


def frame_of(opcode: int, payload: Payload, mask: bytes | None = None) -> bytes:
    """5.2: one whole frame. mask: 4 bytes that nobody can guess, for a client's."""
    head = head_of(opcode, len(payload))
    if mask is None:
        return head + payload
    return bytes((head[0], head[1] | _MASKED)) + head[2:] + mask + masked(payload, mask)


def text_of(payload: Payload) -> str:
    """8.1. Raises FrameError for what is no UTF-8."""
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise FrameError(NOT_UTF8, "a text is no UTF-8") from error


def close_payload(code: int, reason: str) -> bytes:
    """5.5.1. The reason is cut to what a control frame holds."""
    cut = reason.encode()[: MAX_CONTROL_BYTES - 2].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + cut.encode()


def read_close(payload: bytes) -> tuple[int | None, str]:
    """Code and reason of a CLOSE; no code where it has none. Raises FrameError."""
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not may_be_sent(code):
        raise FrameError(PROTOCOL_ERROR, "a close has a code that is never sent")
    return code, text_of(payload[2:])


def may_be_sent(code: int) -> bool:
    """7.4: some codes only describe what happened."""
    return (1000 <= code <= 1014 and code not in _NEVER_SENT) or 3000 <= code <= 4999

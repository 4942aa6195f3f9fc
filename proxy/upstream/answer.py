"""One answer of ComfyUI's after another, from bytes: HTTP/1.1 on httptools (llhttp, strict). Sans-I/O: it knows no socket and no clock."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import httptools
from multidict import CIMultiDict

from proxy.http.errors import UpstreamUnavailable
from proxy.http.headers import KnownFields, RawFields

MAX_FIELDS_BYTES: Final = 512 * 1024
"""Of an answer's head, of what may come before it, and of the fields that may follow its body; with what comes in one piece with their end."""
BROKEN_OFF: Final = "ComfyUI broke off its answer."
_SWITCHED: Final = "ComfyUI switched protocols unasked."
_WITHOUT_BODY: Final = frozenset({204, 304})
_HEAD_METHOD: Final = "HEAD"
_FRAMING: Final = {b"content-length": True, b"transfer-encoding": False}
"""True: by length."""
_FRAMING_LENGTHS: Final = frozenset(map(len, _FRAMING))
MAX_KNOWN_HEADS: Final = 64
"""A head that is known takes about a third of the instructions, one that is not a tenth more than without. `Date` is in each: those of an earlier second
are of no use, so all go when there are too many. So many take 150 KB with ComfyUI's own fields and what is made of them, and 7 MB where they are as
large as may be."""
MAX_KNOWN_BYTES: Final = 4 * 1024
"""Of a head: ComfyUI's have 120 to 320. What is longer is parsed each time, and no more than this is looked through for a head's end."""
_END: Final = b"\r\n\r\n"


class _Head(NamedTuple):
    """What a head says, of an answer whose body has a length."""

    status: int
    fields: KnownFields
    content_length: int
    may_be_followed: bool


class KnownHeads:
    """Heads that were read before, by their bytes: ComfyUI says the same to all who ask for one thing within a second. Bounded."""

    def __init__(self) -> None:
        self.heads: dict[bytes, _Head] = {}

    def add(self, raw: bytes, head: _Head) -> None:
        if len(self.heads) >= MAX_KNOWN_HEADS:
            self.heads.clear()
        self.heads[raw] = head


class AnswerReader:
    """is_complete: the answer is whole. may_be_followed: the connection may carry another call after it. waiting_bytes: of the body, not yet taken.

    SECURITY: what comes after an answer belongs to no call, so nothing may follow on that connection
    (tests/proxy/upstream/test_connection.py).
    """

    def __init__(self, known: KnownHeads | None = None) -> None:
        """known: shared with other readers of answers of the same ComfyUI."""
        self._known = known or KnownHeads()
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes | memoryview] = deque()
        self.begin("")
        self._begin_parsing()
        self.is_complete = True

    def begin(self, method: str) -> None:
        """A call was made; its answer comes next."""
        self._method = method
        self.status = 0
        self.has_head = self.is_complete = self.may_be_followed = False
        self.overhead_bytes = 0
        """Received since the last of the body."""
        self.waiting_bytes = 0
        self.left_bytes = 0
        """Of a body of known length: what comes next goes past the parser, and is kept as it comes."""
        self.content_length: int | None = None
        self.fields: RawFields = ()
        self._chunks.clear()
        self._ends_with_connection = False
        self._is_untouched = True
        """Nothing of this answer has come."""

    def _begin_parsing(self) -> None:
        """The parser gets this answer, whose head is none that was read before."""
        self._parsed_bytes = 0
        self._reading: list[tuple[bytes, bytes]] = []
        self._is_interim = self._had_interim = self._may_follow = False

    def feed(self, data: bytes | memoryview) -> None:
        """Raises UpstreamUnavailable for what is no answer."""
        if self.is_complete:
            self.may_be_followed = False
            return
        if self.left_bytes:
            taken = data if len(data) <= self.left_bytes else data[: self.left_bytes]
            self.may_be_followed = self.may_be_followed and taken is data
            self.left_bytes -= len(taken)
            self.on_body(taken)
            self.is_complete = not self.left_bytes
            return
        head = b""
        if self._is_untouched:
            self._is_untouched = False
            if isinstance(data, bytes) and (end := data.find(_END, 0, MAX_KNOWN_BYTES)) >= 0:
                head = data[: end + len(_END)]
                known = self._known.heads.get(head)
                if known is not None and self._method != _HEAD_METHOD:
                    _take_known(self, known, data[len(head) :])
                    return
            self._begin_parsing()
        self.overhead_bytes += len(data)
        if self.overhead_bytes > MAX_FIELDS_BYTES:
            raise UpstreamUnavailable("ComfyUI's answer has fields without end.")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # SECURITY: nobody asked for another protocol; passed on, it would open a tunnel past every rule. test_client.py
            raise UpstreamUnavailable(_SWITCHED) from None
        except httptools.HttpParserError as error:
            _misread(self, error)
        self._leave_parser()
        if head and (read := _head_of(self)) is not None:
            self._known.add(head, read)

    def _leave_parser(self) -> None:
        """The rest of a body of known length goes past the parser, which would copy each piece of it."""
        if self.has_head and not self.is_complete and self.content_length is not None:
            self.left_bytes = self.content_length - self._parsed_bytes
            self._parser = httptools.HttpResponseParser(self)

    def feed_end(self) -> bool:
        """The connection has ended; says whether that ends the answer well."""
        if self.has_head and self._ends_with_connection:
            self.is_complete = True
        self.may_be_followed = False
        return self.is_complete

    @property
    def has_body(self) -> bool:
        return self._method != _HEAD_METHOD and self.status not in _WITHOUT_BODY

    @property
    def headers(self) -> CIMultiDict[str]:
        return CIMultiDict([(_text(name), _text(value)) for name, value in self.fields])

    def take_whole(self, max_bytes: int) -> bytes | None:
        """The whole body, where it is here in one piece, and no larger."""
        if not self.is_complete or len(self._chunks) != 1 or self.waiting_bytes > max_bytes:
            return None
        self.waiting_bytes = 0
        return bytes(self._chunks.popleft())

    def has_chunk(self) -> bool:
        return bool(self._chunks)

    def take_chunk(self) -> bytes | memoryview:
        """The next piece, as it was read: to join pieces costs more than to send each."""
        taken = self._chunks.popleft()
        self.waiting_bytes -= len(taken)
        return taken

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.is_complete:  # a second answer to one call
            self.may_be_followed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # trailers go nowhere
            self._reading.append((name, value))

    def on_headers_complete(self) -> None:
        if self.is_complete:
            return
        self.status = self._parser.get_status_code()
        self._is_interim = 100 <= self.status < 200
        if self._is_interim:
            if self.status == 101:
                raise UpstreamUnavailable(_SWITCHED)
            return
        self.fields, is_chunked = self._reading, False
        for name, value in self.fields:
            if len(name) in _FRAMING_LENGTHS and (is_by_length := _FRAMING.get(name.lower())) is not None:
                if is_by_length:
                    self.content_length = int(value)
                else:
                    is_chunked = True
        self._ends_with_connection = self.content_length is None and not is_chunked
        self.may_be_followed = self._may_follow = self._parser.should_keep_alive()
        self.has_head = True
        if self._method == _HEAD_METHOD:  # llhttp does not know, and would wait for the body that the head speaks of
            self._parser = httptools.HttpResponseParser(self)
            self.is_complete = True

    def on_body(self, body: bytes | memoryview) -> None:
        if self.is_complete:
            self.may_be_followed = False
            return
        self.overhead_bytes = 0
        self._chunks.append(body)
        self.waiting_bytes += len(body)
        self._parsed_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._reading, self._is_interim, self._had_interim = [], False, True
        else:
            self.is_complete = True


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _misread(reader: AnswerReader, error: Exception) -> None:
    """Raises UpstreamUnavailable, but for what follows an answer that is whole, which belongs to no call."""
    if reader.is_complete:
        reader.may_be_followed = False
        return
    raise (UpstreamUnavailable(BROKEN_OFF) if reader.has_head else UpstreamUnavailable()) from error


def _take_known(reader: AnswerReader, head: _Head, rest: bytes) -> None:
    """The parser stands before this answer and sees nothing of it: so it does behind it, too. rest: what came with the head."""
    reader.status, reader.fields, length, reader.may_be_followed = head
    reader.content_length = length
    reader.has_head = True
    if len(rest) == length:
        reader.is_complete = True
        if rest:
            reader._chunks.append(rest)
            reader.waiting_bytes = length
        return
    reader.left_bytes, reader.is_complete = length, not length
    if rest:
        reader.feed(rest)


def _head_of(reader: AnswerReader) -> _Head | None:
    """None of an answer that does not end by its length alone, or had interim ones before it."""
    if reader._had_interim or not reader.has_head or reader.content_length is None or not reader.has_body:
        return None
    return _Head(reader.status, KnownFields(reader.fields), reader.content_length, reader._may_follow)

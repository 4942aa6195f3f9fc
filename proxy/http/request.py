"""One request of a client's: its head, whole; its body, as it comes; and the answer's way back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, NoReturn

from multidict import CIMultiDict

from proxy.http.response_head import INTERIM, SharedFields, has_body, head_bytes, length_in, length_line

if TYPE_CHECKING:
    from proxy.http.connection import Connection
    from proxy.http.handed_over import HandedOver

Fields = Collection[tuple[str, str]]
"""Header fields, in order."""
CLIENT_GONE: Final = "the client has gone"
_CLOSE: Final = ("Connection", "close")
_COPIED_BYTES: Final = 32 * 1024
"""A body up to this is sent with its head in one piece; a larger one is not copied."""
HIGH_WATER_BYTES: Final = 256 * 1024
"""So much of a body waits for its reader before no more is read from the client."""


class WrongLength(Exception):
    """The pieces of an answer do not add up to the Content-Length that was said. The connection is closed: nobody knows where the answer ends."""


class RequestBody:
    """The body as it comes; read by one reader, who slows its client down by not reading. length: as declared, None where it is chunked."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_error",
        "_is_begun",
        "_is_dropped",
        "_waiter",
        "is_complete",
        "length",
        "waiting_bytes",
    )

    def __init__(self, connection: Connection | None, length: int | None) -> None:
        self.length = length
        self.is_complete = length == 0
        self.waiting_bytes = 0
        self._connection = connection
        self._chunks: deque[bytes] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_begun = self._is_dropped = False

    def feed(self, data: bytes) -> None:
        if self._is_dropped:
            return
        if self._chunks is None:
            self._chunks = deque()
        self._chunks.append(data)
        self.waiting_bytes += len(data)
        self._wake()

    def feed_end(self) -> None:
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """It can never be whole; what came of it is read first."""
        if not self.is_complete and self._error is None:
            self._error = error
            self._wake()

    def drop(self) -> None:
        """Nobody reads it any more."""
        self._is_dropped = True
        self._chunks = None
        self.waiting_bytes = 0
        self._resume()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    @property
    def is_full(self) -> bool:
        return self.waiting_bytes > HIGH_WATER_BYTES and not self.is_complete

    @property
    def is_followed(self) -> bool:
        """Whether its reader takes what comes: it has taken all until now. Of who waits for a place, or is not known yet, nobody takes anything."""
        return self._is_begun and not self.waiting_bytes

    @property
    def is_read(self) -> bool:
        """Whether there is nothing left to read, now or later."""
        return self.is_complete and not self._chunks

    def take(self) -> bytes | None:
        """The next piece, when one is there."""
        if not self._chunks:
            return None
        taken = self._chunks.popleft()
        self._is_begun = True
        if self.is_complete and not self._chunks:
            self._chunks = None  # it is no small thing, and the request may wait for long
        was_full = self.waiting_bytes > HIGH_WATER_BYTES // 2
        self.waiting_bytes -= len(taken)
        if was_full and self.waiting_bytes <= HIGH_WATER_BYTES // 2:
            self._resume()
        return taken

    async def read(self, limit_s: float | None = None) -> bytes:
        """The next piece, empty at the end. Raises what it failed with: ConnectionError where the client has gone, or sent what is no body; and
        TimeoutError where nothing comes for so long.
        """
        while True:
            taken = self.take()
            if taken is not None:
                return taken
            if self.is_complete:
                return b""
            if self._error is not None:
                raise self._error
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            # As asyncio.timeout does it, at a fifth of the price: for each piece of a body there is one.
            timer = None if limit_s is None else loop.call_later(limit_s, _expire, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


NO_BODY: Final = RequestBody(None, 0)
"""Of every request without one: it is complete, and nothing of it changes."""


class Request:
    """method, raw_path: as they came. version: (1, 0) or (1, 1). head_bytes: of the header fields, with what stands between them.

    is_upgrade: it asks for another protocol, and what came behind it waits until that is decided. keep_alive: another request may follow.
    """

    goes_on = False
    """It is ended also when its client has left: what it began must not stay half done."""
    is_proven = False
    """It brought a good credential."""
    is_refused = False
    """It is told to wait, perhaps after a while: whoever needs its connection may have it."""
    has_answer = False
    """The head of the answer is out."""
    has_ended = False
    """The whole answer is out."""
    answer_has_body = is_chunked_out = False
    """How its pieces go out: not at all to a HEAD, for one."""
    _unsent_bytes: int | None = None
    """Of the body of an answer in pieces: what its length still promises; None where it has none."""

    def __init__(
        self,
        method: str,
        raw_path: str,
        headers: CIMultiDict[str],
        connection: Connection,
        version: tuple[int, int] = (1, 1),
        body: RequestBody = NO_BODY,
        head_bytes: int = 0,
        keep_alive: bool = True,
        is_upgrade: bool = False,
        of_fields: dict[str, Any] | None = None,
        of_head: dict[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.headers = headers
        self.connection = connection
        self.version = version
        self.body = body
        self.head_bytes = head_bytes
        self.keep_alive = keep_alive
        self.is_upgrade = is_upgrade
        self.of_fields: dict[str, Any] = {} if of_fields is None else of_fields
        """What was worked out of the header fields alone: the next request of the connection shares it, when its fields are the same."""
        self.of_head: dict[str, Any] = {} if of_head is None else of_head
        """The same of the whole head, request line and fields."""

    @property
    def content_length(self) -> int | None:
        """As declared; None where the body is chunked, or there is none."""
        return None if self.body is NO_BODY else self.body.length

    @property
    def can_read_body(self) -> bool:
        return not self.body.is_read

    @property
    def remote(self) -> str:
        """The address of whoever connected."""
        return self.connection.peer

    def hang_up(self) -> None:
        """At once: what was not sent is lost. An answer that only the end of the connection ends is broken off by a reset, so that it never looks whole."""
        is_open_ended = self.answer_has_body and not self.is_chunked_out and self._unsent_bytes is None
        if is_open_ended and not self.has_ended:
            self.connection.reset()
        else:
            self.connection.close()

    def ask_for_body(self) -> None:
        """Answers `Expect: 100-continue` (RFC 9110, 10.1.1)."""
        if not self.body.is_complete:
            self.write_interim()

    def write_interim(self) -> None:
        """Says that the answer is still to come (RFC 9110, 15.2)."""
        if not self.has_answer and self.version >= (1, 1):
            self.connection.write(INTERIM)

    def prove(self, party: str) -> None:
        """It brought a good credential, of this party: its connection may stay idle as long as the configuration says."""
        self.is_proven = True
        connection = self.connection
        if connection.party == party:
            return
        if not connection.party:
            connection.limit_unsent(None)
        connection.party = party
        connection.data_received(b"")  # what waits there counts as that party's now

    @property
    def is_reserved(self) -> bool:
        """Whether its connection is one of those that are kept for /gate/health."""
        return self.connection.is_reserved

    # The answer. All raise ConnectionResetError when the client has gone.

    async def send(
        self, status: int, fields: Fields, body: bytes, reason: str = "", shared: SharedFields | None = None
    ) -> None:
        """A whole answer, in one write: half the cost of a small one is its system calls. fields, shared: without what frames the body and the connection."""
        framing = "" if status in (204, 304) else length_line(len(body))
        head = head_bytes(status, reason, fields, framing + _persistence(self, fields), shared)
        self.has_answer = self.has_ended = True
        if not has_body(self.method, status):
            takes_more = self.connection.write(head)
        elif len(body) <= _COPIED_BYTES:
            takes_more = self.connection.write(head + body)
        else:
            takes_more = self.connection.write(head, body)
        if not takes_more:
            await _taken(self, takes_more)

    async def begin_answer(
        self, status: int, fields: Fields, reason: str = "", shared: SharedFields | None = None
    ) -> None:
        """An answer whose body follows in pieces; chunked where the fields have no Content-Length. Raises ValueError for a length that is no number."""
        framing = ""
        self.answer_has_body = has_body(self.method, status)
        if self.answer_has_body:
            length = length_in(fields) if shared is None or shared.length is None else shared.length
            self._unsent_bytes = None if length is None else int(length)
            if length is None:
                self.is_chunked_out = self.version >= (1, 1)
                framing = "Transfer-Encoding: chunked\r\n" if self.is_chunked_out else ""
                self.keep_alive = self.keep_alive and self.is_chunked_out
        head = head_bytes(status, reason, fields, framing + _persistence(self, fields), shared)
        self.has_answer = True
        await _write(self, head)

    async def send_piece(self, data: bytes) -> None:
        """Some of the body, at the pace of its reader. Raises WrongLength, and sends nothing, where it is more than the length says."""
        self.write_piece(data)
        await self.until_taken()

    def write_piece(self, data: bytes | memoryview) -> bool:
        """Says whether all of it has left; else it is kept until it has, and `until_taken` comes next. Raises WrongLength as `send_piece` does."""
        connection = self.connection
        if not connection.is_usable:
            raise ConnectionResetError(CLIENT_GONE)
        if not data or not self.answer_has_body:
            return True
        if self.is_chunked_out:
            connection.write(b"%x\r\n" % len(data), data, b"\r\n")
        else:
            if self._unsent_bytes is not None:
                if len(data) > self._unsent_bytes:
                    _break_off(self, "longer")
                self._unsent_bytes -= len(data)
            connection.write(data)
        return not connection.has_unsent

    async def until_taken(self) -> None:
        """Until the client takes more."""
        await self.connection.drain()
        if self.connection.is_closed:
            raise ConnectionResetError(CLIENT_GONE)

    async def end_answer(self) -> None:
        """Returns when the whole answer has left: until then its request runs, and neither a stop of the gate nor somebody who wants its place cuts it off.

        Raises WrongLength where the pieces were fewer bytes than the length says.
        """
        if self._unsent_bytes:
            _break_off(self, "shorter")
        if self.is_chunked_out:
            await _write(self, b"0\r\n\r\n")
        connection = self.connection
        if connection.party and connection.has_unsent:  # of a stranger's nothing waits: each piece has left
            connection.limit_unsent(0)
            await self.until_taken()
            connection.limit_unsent(None)
        self.has_ended = True

    async def upgrade(self, protocol: HandedOver, fields: Fields) -> None:
        """Answers 101 and hands the connection over; what came behind the head is the new protocol's. Nothing more of the request is answered."""
        await _write(self, head_bytes(101, "", fields))
        self.has_answer = self.has_ended = True
        self.connection.upgrade(protocol)


def _persistence(request: Request, fields: Fields) -> str:
    """What is said of whether another request may follow (RFC 9112, 9.3)."""
    says_so = _CLOSE in fields
    if says_so or not request.connection.may_go_on:
        request.keep_alive = False
    if not request.keep_alive:
        return "" if says_so else "Connection: close\r\n"
    return "" if request.version >= (1, 1) else "Connection: keep-alive\r\n"


async def _write(request: Request, *parts: bytes) -> None:
    takes_more = request.connection.write(*parts)
    if not takes_more:
        await _taken(request, takes_more)


async def _taken(request: Request, takes_more: bool | None) -> None:
    """takes_more: what `Wire.write` has said."""
    if takes_more is None:
        raise ConnectionResetError(CLIENT_GONE)
    await request.until_taken()


def _break_off(request: Request, how: str) -> NoReturn:
    """SECURITY: a byte more is read as the next answer, a byte less is taken from it (RFC 9112, 6.3). test_answer_lengths.py"""
    request.hang_up()
    raise WrongLength(f"the body of an answer is {how} than its length says")

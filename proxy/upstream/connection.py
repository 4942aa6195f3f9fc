"""One connection to ComfyUI, which carries one call after another: its bytes (wire.py), the answers in them (answer.py), and who waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import ClassVar, Final

from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.replies import Taker
from proxy.http.wire import BufferedWire, ReadBuffers, SilenceTimer
from proxy.upstream.answer import BROKEN_OFF, AnswerReader, KnownHeads

READ_BYTES: Final = 128 * 1024
"""Read at once: a client that takes its answer slowly holds so much of it."""
MORE_BYTES: Final = 512 * 1024
"""The same while who takes them takes all: each call of the system wakes somebody, and more would not stay in a processor's cache until it is written."""
HIGH_WATER_BYTES: Final = READ_BYTES
"""So much of an answer waits for its reader before no more is read."""


class ConnectionClosed(UpstreamUnavailable):
    """A kept connection was closed before the first byte of an answer: the call may be made again on a new one, if it changes nothing."""


class _TooLarge(Exception):
    """A body has more bytes than its reader takes."""


class _Collector:
    """Takes a body of so many bytes at most, to be read whole."""

    def __init__(self, max_bytes: int) -> None:
        self.parts: list[bytes] = []
        self._left_bytes = max_bytes

    def take(self, piece: bytes | memoryview) -> bool:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise _TooLarge
        self.parts.append(bytes(piece))
        return True

    async def ready(self) -> None:
        """It always is."""


class Connection(BufferedWire):
    """`begin` writes a call, `head` waits for its answer, `pour` and `read` give its body, `finish` says whether another call may follow."""

    buffers = ReadBuffers(READ_BYTES)
    larger: ClassVar[ReadBuffers] = ReadBuffers(MORE_BYTES)

    def __init__(self, known: KnownHeads | None = None) -> None:
        """known: heads of answers that came on other connections."""
        super().__init__()
        self._first_buffer = self._buffer
        self.answer = AnswerReader(known)
        self._idle_since_s = 0.0
        self._silence = SilenceTimer(lambda: self.fail(UpstreamTimeout()))
        self._time_limit_s = 0.0
        self._is_busy = self._is_reused = self._is_clients_turn = self._is_limit_for_all = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._taker: Taker | None = None
        """While it takes what comes at once."""

    def begin(
        self,
        method: str,
        head: bytes,
        body: bytes | AsyncIterable[bytes] | None,
        time_limit_s: float,
        *,
        is_for_all: bool = False,
    ) -> None:
        """Writes the call, whole where its body is. time_limit_s: how long ComfyUI may be silent from then on; is_for_all: or take for all of its answer."""
        self.answer.begin(method)
        self._buffer = self._first_buffer
        self._error = None
        self._is_busy = True
        self._time_limit_s = time_limit_s
        self._is_limit_for_all = is_for_all
        is_written = self.write(head + body if isinstance(body, bytes) else head) is not None
        self._is_clients_turn = body is not None and not isinstance(body, bytes)
        if is_written and not self._is_clients_turn:
            self._silence.start(time_limit_s)
        else:
            self._silence.stop()

    async def send_body(self, body: AsyncIterable[bytes], *, length: int | None) -> None:
        """Writes the body as it comes from the client; what comes when the connection has ended is read and thrown away.

        length: as the call's head declares it, None for chunks (RFC 9112, 7.1). Raises UpstreamUnavailable for a body of another length.
        """
        is_chunked, left = length is None, length or 0
        async for chunk in body:
            if not chunk:
                continue
            left -= len(chunk)
            if not is_chunked and left < 0:  # SECURITY: a byte more would be read as the next call
                raise UpstreamUnavailable("The body is longer than its length says.")
            parts = (b"%x\r\n" % len(chunk), chunk, b"\r\n") if is_chunked else (chunk,)
            if self.write(*parts) is False:
                self._turn_to(is_clients=False)
                await self.drain()
                self._turn_to(is_clients=True)
        if is_chunked:
            self.write(b"0\r\n\r\n")
        elif left:
            raise UpstreamUnavailable("The body is shorter than its length says.")
        self._turn_to(is_clients=False)

    async def head(self) -> None:
        """Waits for the head of the answer. Raises UpstreamTimeout, UpstreamUnavailable, and what the body failed with."""
        while not self.answer.has_head:
            await self._next()

    async def pour(self, taker: Taker) -> None:
        """The body into the taker, each piece in the step in which it comes: nobody is woken for it, and nothing of it is copied.

        Raises UpstreamTimeout, UpstreamUnavailable, and what the taker does.
        """
        while True:
            while self.answer.has_chunk():
                if not taker.take(self.answer.take_chunk()):
                    await taker.ready()
            if self.answer.is_complete:
                return
            self._taker = taker
            self._go_on()
            try:
                await self._next()
            finally:
                self._taker = None
            await taker.ready()

    async def read(self, max_bytes: int) -> bytes | None:
        """The whole body; None when it is larger. Raises UpstreamTimeout, UpstreamUnavailable."""
        at_once = self.answer.take_whole(max_bytes)
        if at_once is not None:
            return at_once
        collector = _Collector(max_bytes)
        try:
            await self.pour(collector)
        except _TooLarge:
            return None
        return b"".join(collector.parts)

    def finish(self) -> bool:
        """The answer is no longer wanted. Returns whether the connection may carry another call; else it is closed."""
        is_whole = self.answer.is_complete and self.answer.may_be_followed and self._error is None
        # Answered before ComfyUI had the whole call, the next one would wait behind the rest.
        is_good = is_whole and self.is_usable and not self.has_unsent
        self._is_busy = False
        self._is_reused = True
        self._silence.stop()
        if is_good:
            self._idle_since_s = self._loop.time()
            if self.is_read_paused:
                self.resume_reading()
        else:
            self.close()
        return is_good

    def close(self) -> None:
        self._silence.cancel()
        super().close()

    @property
    def _is_waited_for(self) -> bool:
        """Whether the answer of a call is still to come, or its end."""
        return self._is_busy and not self.answer.is_complete

    def received(self, data: memoryview) -> None:
        if not self._is_waited_for:
            self.close()
            return
        taker = self._taker
        is_passed_on = taker is not None and self.answer.left_bytes > 0
        try:
            self.answer.feed(data if is_passed_on else bytes(data))
        except UpstreamUnavailable as error:
            self.fail(error)
            return
        if taker is not None:
            try:
                while self.answer.has_chunk() and not self.is_read_paused:
                    if not taker.take(self.answer.take_chunk()):
                        self._buffer.renew()
                        self._buffer = self._first_buffer
                        self.pause_reading()
                if len(data) == len(self._buffer.view) and not self.is_read_paused:
                    self._buffer = self.larger.own
            except Exception as error:
                self.fail(error)
        elif (
            self.answer.waiting_bytes > HIGH_WATER_BYTES and not self.answer.is_complete and not self._is_limit_for_all
        ):
            self.pause_reading()
        if self.answer.is_complete or self.is_read_paused:
            self._silence.stop()
        elif not self._is_limit_for_all:
            self._silence.heard()
        if taker is None or self.answer.is_complete or self.is_read_paused:
            self._wake()

    def lost(self, error: Exception | None) -> None:
        self._silence.cancel()
        if not self._is_waited_for:
            return
        if error is None and self.answer.feed_end():
            self._wake()
        elif self.answer.has_head:
            self.fail(UpstreamUnavailable(BROKEN_OFF))
        else:
            is_untouched = self._is_reused and not self.answer.overhead_bytes
            self.fail(ConnectionClosed() if is_untouched else UpstreamUnavailable())

    def _go_on(self) -> None:
        """Reads on, where that was paused."""
        if self.is_read_paused:
            self.resume_reading()
            self._turn_to(is_clients=self._is_clients_turn)

    def _turn_to(self, *, is_clients: bool) -> None:
        """Whose silence it is: ComfyUI's clock stands still while the call's sender or its answer's reader takes its time."""
        self._is_clients_turn = is_clients
        if self._is_waited_for and not is_clients and not self.is_read_paused and self.is_usable:
            self._silence.start(self._time_limit_s)
        else:
            self._silence.stop()

    async def _next(self) -> None:
        """Waits for whatever comes next. Raises what has ended the call; what came before that is read first."""
        if self.is_closed and self._error is None:
            raise UpstreamUnavailable  # it ended before the call began, and nobody was told
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None and not self.answer.has_chunk():
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Ends the call with this error, such as the one that the client's body broke off with."""
        if self._error is None:
            self._error = error
        self._wake()
        self.close()


def idle_s(connection: Connection) -> float:
    """How long it carries no call."""
    return connection._loop.time() - connection._idle_since_s

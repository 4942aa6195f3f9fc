"""One connection to ComfyUI: HTTP/1.1 on httptools (llhttp, strict), one call after another, with back-pressure and a clock for silence."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, cast

import httptools
from multidict import CIMultiDict

from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of an answer, and of what may come before it."""
HIGH_WATER_BYTES: Final = 256 * 1024
"""So much of an answer waits for its reader before no more is read."""
_BROKEN_OFF: Final = "ComfyUI broke off its answer."
_SWITCHED: Final = "ComfyUI switched protocols unasked."
_WITHOUT_BODY: Final = frozenset({204, 304})
_HEAD_METHOD: Final = "HEAD"


class ConnectionClosed(UpstreamUnavailable):
    """A kept connection was closed before the first byte of an answer: the call may be made again on a new one, if it changes nothing."""


class Connection(asyncio.Protocol):
    """Carries one call at a time: `begin` writes it, `head` waits for its answer, `chunks` reads that, `finish` says whether it may be used again.

    SECURITY: what comes when nothing was asked ends the connection, so no answer can be taken for another call's
    (tests/proxy/upstream/test_connection.py).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.is_closed = False
        self.is_reused = False
        self.idle_since_s = 0.0
        self._is_busy = False
        self._method = ""
        self._time_limit_s = 0.0
        self._deadline_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_write_paused = self._is_read_paused = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._has_head = self._is_complete = self._is_interim = self._is_kept_alive = False
        self._ends_with_connection = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_busy or self._is_complete:
            self.close()
            return
        if self._deadline_s is not None:
            self._deadline_s = self._loop.time() + self._time_limit_s
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + HIGH_WATER_BYTES:
                self._fail(UpstreamUnavailable("ComfyUI's answer has a head without end."))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamUnavailable(_SWITCHED))
        except httptools.HttpParserError:
            self._misread()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        if self._is_busy and not self._is_complete:
            if self._has_head and self._ends_with_connection and error is None:
                self.on_message_complete()
            elif self._has_head:
                self._fail(UpstreamUnavailable(_BROKEN_OFF))
            else:
                is_untouched = self.is_reused and not self._head_bytes
                self._fail(ConnectionClosed() if is_untouched else UpstreamUnavailable())
        self.resume_writing()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._is_complete:  # a second answer to one call
            self._is_kept_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers go nowhere
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return
        self.status = self._parser.get_status_code()
        # SECURITY: nobody asked for another protocol; passed on, it would open a tunnel past every rule. test_client.py
        self._is_interim = 100 <= self.status < 200
        if self._is_interim:
            if self.status == 101:
                self._fail(UpstreamUnavailable(_SWITCHED))
            return
        names = {name.lower() for name, _ in self._fields}
        self._ends_with_connection = b"content-length" not in names and b"transfer-encoding" not in names
        self._is_kept_alive = self._parser.should_keep_alive()
        self._has_head = True
        self._head_bytes = 1
        if self._method == _HEAD_METHOD:  # llhttp does not know, and would wait for the body that the head speaks of
            self._parser = httptools.HttpResponseParser(self)
            self._is_complete = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._method == _HEAD_METHOD or self._is_complete:
            self._is_kept_alive = False
            return
        self._chunks.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._is_read_paused and self._transport is not None:
            self._is_read_paused = True
            self._deadline_s = None  # while the answer's reader takes its time, ComfyUI's stands still
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._fields, self._is_interim = [], False
            return
        self._is_complete = True
        self._deadline_s = None
        self._wake()

    # What the pool and the door call.

    def begin(self, method: str, head: bytes, body: bytes | AsyncIterable[bytes] | None, time_limit_s: float) -> None:
        """Writes the call, whole where its body is. time_limit_s: how long ComfyUI may be silent from then on."""
        assert self._transport is not None, "connected"
        self._reset()
        self._error = None
        self._is_busy = True
        self._method = method
        self._time_limit_s = time_limit_s
        if isinstance(body, bytes):
            self._transport.write(head + body)
        else:
            self._transport.write(head)
        self._watch(is_on=body is None or isinstance(body, bytes))

    async def send_body(self, body: AsyncIterable[bytes], *, is_chunked: bool) -> None:
        """While the client sends nothing ComfyUI's clock stands still; while ComfyUI takes nothing it runs."""
        assert self._transport is not None, "connected"
        async for chunk in body:
            if self.is_closed or not chunk:
                continue
            if is_chunked:
                self._transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
            else:
                self._transport.write(chunk)
            if self._is_write_paused:
                self._watch(is_on=True)
                self._drained = self._loop.create_future()
                await self._drained
                self._watch(is_on=False)
        if is_chunked and not self.is_closed:
            self._transport.write(b"0\r\n\r\n")
        self._watch(is_on=not self._is_complete)

    def body_failed(self, error: BaseException) -> None:
        """The client's body broke off: so does the call, with that error."""
        self._fail(error if isinstance(error, Exception) else UpstreamUnavailable())

    async def head(self) -> CIMultiDict[str]:
        """Waits for the head of the answer. Raises UpstreamTimeout, UpstreamUnavailable, and what the body failed with."""
        while not self._has_head:
            await self._next()
        fields = self._fields
        return CIMultiDict((name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in fields)  # fmt: skip

    @property
    def has_body(self) -> bool:
        return self._method != _HEAD_METHOD and self.status not in _WITHOUT_BODY

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises UpstreamTimeout, UpstreamUnavailable."""
        while True:
            if self._chunks:
                yield self._take()
            elif self._is_complete:
                return
            else:
                await self._next()

    async def read(self, max_bytes: int) -> bytes | None:
        """The whole body; None when it is larger. Raises UpstreamTimeout, UpstreamUnavailable."""
        size, parts = 0, []
        while not self._is_complete or self._chunks:
            if self._chunks:
                parts.append(self._take())
                size += len(parts[-1])
                if size > max_bytes:
                    return None
            else:
                await self._next()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> bool:
        """The answer is no longer wanted. Returns whether the connection may carry another call."""
        is_good = self._is_complete and self._is_kept_alive and not self.is_closed and self._error is None
        self._is_busy = False
        self._deadline_s = None
        self._chunks.clear()
        if not is_good:
            self.close()
        elif self._is_read_paused and self._transport is not None:
            self._resume_reading()
        self.is_reused = True
        return is_good

    def close(self) -> None:
        """At once: what was not sent or read is lost."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    # Inside.

    def _take(self) -> bytes:
        """The next piece, as it was read: to join pieces costs more than to send each."""
        taken = self._chunks.popleft()
        self._waiting_bytes -= len(taken)
        if self._is_read_paused and not self.is_closed and self._waiting_bytes <= HIGH_WATER_BYTES // 2:
            self._resume_reading()
        return taken

    def _resume_reading(self) -> None:
        assert self._transport is not None, "connected"
        self._is_read_paused = False
        self._transport.resume_reading()
        self._watch(is_on=self._is_busy and not self._is_complete)

    async def _next(self) -> None:
        """Waits for whatever comes next. Raises what has ended the call."""
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._raise_error()

    def _raise_error(self) -> None:
        """What came before it is read first."""
        if self._error is not None and not self._chunks:
            raise self._error

    def _misread(self) -> None:
        """What came is no answer; or it is what follows one that is whole, which is not ours."""
        if self._is_complete:
            self.close()
        else:
            self._fail(UpstreamUnavailable(_BROKEN_OFF) if self._has_head else UpstreamUnavailable())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()
        self.close()

    def _watch(self, *, is_on: bool) -> None:
        """One timer per connection, which looks at the deadline of whatever call there is: to move a deadline costs nothing."""
        if not is_on:
            self._deadline_s = None
            return
        self._deadline_s = self._loop.time() + self._time_limit_s
        if self._timer is None or self._timer.when() > self._deadline_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline_s is None or self.is_closed:
            return
        if self._loop.time() >= self._deadline_s:
            self._fail(UpstreamTimeout())
        else:
            self._timer = self._loop.call_at(self._deadline_s, self._look)

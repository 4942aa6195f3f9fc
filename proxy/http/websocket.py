"""A WebSocket on its connection, of either side (RFC 6455): no task, no future, and nothing buffered while nothing comes."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.http.handed_over import HandedOver
from proxy.http.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    FrameError,
    FrameReader,
    Payload,
    close_payload,
    frame_of,
    head_of,
    read_close,
    text_of,
)
from proxy.http.wire import ReadBuffer, ReadBuffers

CLOSE_LIMIT_S: Final = 3.0
"""How long the peer may take to answer a close, or to read what was sent before it."""
BUFFER_BYTES: Final = 64 * 1024
"""Of what the connection has not taken yet: beyond it `is_write_paused`."""
ABNORMAL: Final = 1006
"""RFC 6455, 7.4.1: the connection ended without a close."""
MAX_LATE_FRAMES: Final = 100
"""Read behind this side's close, until the peer has answered it: what it had sent by then. More is thrown away unread."""
_NO_CODE: Final = 1000
_COPIED_BYTES: Final = 16 * 1024
"""So much that was read at once is copied, and so large a payload sent with its head in one piece; more is not copied."""
_BUFFERS: Final = ReadBuffers(128 * 1024)
"""Of all WebSockets of a thread; a client that takes a picture slowly may hold one of that size. SECURITY: who keeps what was read for longer than it is
told of it copies it (tests/proxy/http/test_websocket_views.py).
"""


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


class Receiver(Protocol):
    """Whom a WebSocket tells what happens to it. All are called by the event loop, and none waits."""

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        """A whole message. frame: as it came, where a server sent it at once and in one frame; a client may be sent that."""

    def received_control(self, size: int) -> None:
        """A ping, a pong, or a fragment that ends no message: it was dealt with. size: of its payload, in bytes."""

    def writable(self) -> None:
        """What was written over BUFFER_BYTES has left."""

    def ended(self, close: Close, *, is_said: bool) -> None:
        """Called once, when the connection is gone. is_said: the peer said so, with this code and reason; else what it ended by."""


class Hearer:
    """A receiver of messages that does nothing about all else."""

    __slots__ = ()

    def received_control(self, size: int) -> None:
        """The WebSocket has dealt with it."""

    def writable(self) -> None:
        """What is sent is small and rare."""


class SocketConnection(HandedOver, asyncio.BufferedProtocol):
    """A connection whose frames are written as they are sent. Nothing is written once a close was, or the connection has ended."""

    __slots__ = ("_buffer", "_has_closed", "_is_client", "_limit")

    def __init__(self, *, is_client: bool) -> None:
        super().__init__()
        self._buffer = _BUFFERS.own
        self._is_client = is_client
        self._has_closed = False
        """A close was sent, or the connection broken off: whatever still comes is no message."""
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(BUFFER_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self._has_closed = True
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        super().connection_lost(error)

    def abort(self) -> None:
        self._has_closed = True
        super().abort()

    def write_frame(self, opcode: int, payload: Payload) -> None:
        transport = self.transport
        if transport is None or self._has_closed or transport.is_closing():
            return
        if self._is_client:
            transport.write(frame_of(opcode, payload, secrets.token_bytes(4)))
        elif len(payload) <= _COPIED_BYTES:
            transport.write(head_of(opcode, len(payload)) + payload)
        else:
            _write_large(transport, self._buffer, head_of(opcode, len(payload)), payload)

    def write_ready(self, frame: Payload) -> None:
        """A whole frame as a server writes it, such as came from one."""
        transport = self.transport
        if transport is not None and not self._has_closed and not transport.is_closing():
            if isinstance(frame, memoryview):
                _write_large(transport, self._buffer, b"", frame)
            else:
                transport.write(frame)

    def _write_close(self, payload: bytes) -> None:
        """The last frame. From now on the peer has CLOSE_LIMIT_S to end the connection."""
        self.write_frame(CLOSE, payload)
        self._has_closed = True
        if self._limit is None and self.transport is not None:
            self._limit = asyncio.get_running_loop().call_later(CLOSE_LIMIT_S, self.abort)


def _write_large(transport: asyncio.WriteTransport, read: ReadBuffer, head: bytes, payload: Payload) -> None:
    """Uncopied, where it can leave now. What cannot the transport keeps: of a view, all that was read with it. read: into which it was."""
    is_view = isinstance(payload, memoryview)
    if is_view and transport.get_write_buffer_size():
        payload = bytes(payload)
    transport.writelines((head, payload) if head else (payload,))
    if is_view and transport.get_write_buffer_size():
        read.renew()


class WebSocket(SocketConnection):
    """`connection_made` gives it its connection, `start` the one who listens: until then nothing is read."""

    __slots__ = ("_end", "_late_frames", "_reader", "_receiver", "_unread", "silent_looks")

    def __init__(self, *, is_client: bool, max_bytes: int) -> None:
        """is_client: this side is. max_bytes: of one message."""
        super().__init__(is_client=is_client)
        self._reader = FrameReader(is_masked=not is_client, max_bytes=max_bytes)
        self._receiver: Receiver | None = None
        self._unread: bytes | None = b""
        """What came before `start`; None from then on."""
        self._end: tuple[Close, bool] | None = None
        self._late_frames = 0
        self.silent_looks = 0
        """How often its heartbeat has looked since the peer was heard."""

    def start(self, receiver: Receiver) -> None:
        """Tells the receiver what comes from now on, and what has come."""
        self._receiver = receiver
        unread, self._unread = self._unread, None
        if unread:
            self.data_received(unread)
        self.resume_reading()
        if self.transport is None:
            asyncio.get_running_loop().call_soon(self._tell_end)  # it has ended already

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer.view[:nbytes]
        self.data_received(data if nbytes > _COPIED_BYTES else bytes(data))

    def data_received(self, data: Payload) -> None:
        self.silent_looks = 0
        if self._unread is not None:
            self._unread += data
            self.pause_reading()
        elif self._end is None:
            try:
                self._reader.feed(data, self._take)
            except FrameError as error:
                self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        # SECURITY: its heartbeat remembers it until the next look, and clients that come and go leave half a message each (test_websocket.py).
        self._reader.drop()
        if self._unread is None:
            self._tell_end()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._receiver is not None and not self._has_closed:
            self._receiver.writable()

    def send(self, data: str | Payload) -> None:
        """A message. It waits in memory while `is_write_paused`: who sends looks at that first."""
        if isinstance(data, str):
            self.write_frame(TEXT, data.encode())
        else:
            self.write_frame(BINARY, data)

    def ping(self) -> None:
        """Where nothing waits to be sent: that asks for an answer of the peer's machine as well, and a ping behind it would only wait too."""
        if self.transport is not None and not self.transport.get_write_buffer_size():
            self.write_frame(PING, b"")

    def close(self, close: Close) -> None:
        """After what was sent. The connection ends when the peer has answered, or CLOSE_LIMIT_S later."""
        if not self._has_closed:
            self._write_close(close_payload(close.code, close.reason))

    def _take(self, opcode: int, payload: Payload, frame: Payload | None) -> None:
        receiver = self._receiver
        if self._has_closed and (opcode != CLOSE or self._end is not None):
            self._take_late()
        elif receiver is None:
            return
        elif opcode == TEXT:
            receiver.received(text_of(payload), frame)
        elif opcode == BINARY:
            receiver.received(payload, frame)
        elif opcode == CLOSE:
            self._take_close(bytes(payload))
        else:
            if opcode == PING and not self.is_write_paused:  # else answers that nobody reads would pile up
                self.write_frame(PONG, payload)
            receiver.received_control(len(payload))

    def _take_late(self) -> None:
        """SECURITY: nobody counts these frames any more, and each costs time that everybody waits for (tests/proxy/http/test_websocket.py)."""
        self._late_frames += 1
        if self._late_frames > MAX_LATE_FRAMES:
            raise FrameError(PROTOCOL_ERROR, "much was sent behind a close")

    def _take_close(self, payload: bytes) -> None:
        """5.5.1: answered with the same, unless this side has said it first; then the connection ends."""
        code, reason = read_close(payload)
        self._end = Close(_NO_CODE if code is None else code, reason), True
        if not self._has_closed:
            self._write_close(payload)
        if self.transport is not None:
            self.transport.close()

    def _fail(self, error: FrameError) -> None:
        """7.1.7. What still comes is thrown away: a connection closed under a peer that sends would lose it the reason."""
        if self._end is None:  # else the peer has said it before
            self._end = Close(error.code, error.reason), False
        self.close(self._end[0])
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def _tell_end(self) -> None:
        close, is_said = self._end or (Close(ABNORMAL, ""), False)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.ended(close, is_said=is_said)

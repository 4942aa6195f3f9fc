"""A TCP connection with back-pressure in both directions, and a timer that notices when the other side falls silent."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import ClassVar, cast


class Wire(asyncio.BaseProtocol):
    """Whoever speaks on it is an asyncio.Protocol or BufferedProtocol besides, and overrides `lost`. is_closed: it has ended, or was broken off."""

    __slots__ = ("_drained", "_is_write_paused", "_loop", "_transport", "is_closed", "is_read_paused")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self.is_read_paused = False
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def lost(self, error: Exception | None) -> None:
        """Called once, when the connection has ended; with what broke it."""

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self.lost(error)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    @property
    def is_usable(self) -> bool:
        """Whether what is written now goes out: asyncio tells of a connection's end a step after it began to close it."""
        return not self.is_closed and self._transport is not None and not self._transport.is_closing()

    @property
    def has_unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    @property
    def has_input(self) -> bool:
        """Whether something has come that was not read yet: bytes, or the end."""
        if self._transport is None or not self.is_usable or not hasattr(select, "poll"):  # Windows
            return False
        found = self._transport.get_extra_info("socket")
        if found is None:
            return False
        poll = select.poll()
        poll.register(found.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def limit_unsent(self, max_bytes: int | None) -> None:
        """How much of what is written may wait for the other side before `write` says that it takes no more; None: as much as asyncio likes."""
        if self._transport is not None and self.is_usable:
            self._transport.set_write_buffer_limits(max_bytes)

    def write(self, *parts: bytes | memoryview) -> bool | None:
        """Says whether the other side takes more; else `drain` comes next. None on an ended connection, where nothing is written."""
        transport = self._transport
        if transport is None or self.is_closed or transport.is_closing():
            return None
        if len(parts) == 1:
            transport.write(parts[0])
        elif parts:
            transport.writelines(parts)
        return not self._is_write_paused

    async def drain(self) -> None:
        """Waits until the other side takes more, or the connection has ended."""
        if self._is_write_paused and not self.is_closed:
            self._drained = self._loop.create_future()
            await self._drained

    def pause_reading(self) -> None:
        if self._transport is not None and not self.is_read_paused and not self.is_closed:
            self.is_read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self.is_read_paused and not self.is_closed:
            self.is_read_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """At once: what was not sent or read is lost."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """`close`, in a way that the other side takes for no ordinary end (RFC 9293, 3.10.7.4)."""
        found = None if self._transport is None or self.is_closed else self._transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class ReadBuffer:
    """What connections of a kind and a thread read into, one after the other, so many bytes at once.

    SECURITY: each is done with what it has read before the next one reads, or keeps it; else one tenant's bytes would go to another
    (tests/proxy/upstream/test_pouring.py).
    """

    __slots__ = ("_size", "view")

    def __init__(self, size: int) -> None:
        self._size = size
        self.renew()

    def renew(self) -> None:
        """Somebody has what was read last, and is not done with it."""
        self.view = memoryview(bytearray(self._size))


class ReadBuffers(threading.local):
    """One for each thread that reads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._own: ReadBuffer | None = None

    @property
    def own(self) -> ReadBuffer:
        """That of the thread that asks."""
        if self._own is None:
            self._own = ReadBuffer(self._size)
        return self._own


class BufferedWire(Wire, asyncio.BufferedProtocol):
    """A connection whose bytes need not be copied to be passed on. Whoever speaks on it overrides `received`, or `data_received`."""

    buffers: ClassVar[ReadBuffers]

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        super().__init__()
        self._buffer = self.buffers.own

    def received(self, data: memoryview) -> None:
        """Some bytes have come. What is wanted for longer than this call is copied, or the buffer is renewed."""
        self.data_received(bytes(data))

    def data_received(self, data: bytes) -> None:
        """The same, copied."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        self.received(self._buffer.view[:nbytes])


class SilenceTimer:
    """One timer, which looks at a deadline: to move the deadline costs nothing. on_silence: called when it has passed."""

    def __init__(self, on_silence: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_silence = on_silence
        self._limit_s = 0.0
        self._deadline_s: float | None = None
        self._looks_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, limit_s: float) -> None:
        """From now on so long a silence is too long."""
        self._limit_s = limit_s
        self._deadline_s = deadline_s = self._loop.time() + limit_s
        if self._timer is None:
            self._looks_at_s = deadline_s
            self._timer = self._loop.call_at(deadline_s, self._look)
        elif self._looks_at_s > deadline_s:
            self._timer.cancel()
            self._looks_at_s = deadline_s
            self._timer = self._loop.call_at(deadline_s, self._look)

    def heard(self) -> None:
        """The other side said something."""
        if self._deadline_s is not None:
            self._deadline_s = self._loop.time() + self._limit_s

    def stop(self) -> None:
        """Silence is no longer its fault; what is set is kept for the next start."""
        self._deadline_s = None

    def cancel(self) -> None:
        self._deadline_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        if self._loop.time() >= self._deadline_s:
            self._on_silence()
        else:
            self._looks_at_s = self._deadline_s
            self._timer = self._loop.call_at(self._deadline_s, self._look)

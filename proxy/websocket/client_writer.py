"""Writes what is on its way to one client: at once where nothing waits, else by a task that ends with what waits, so that an idle socket has none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import aiohttp

from proxy.websocket.accepted import AcceptedSocket
from proxy.websocket.send_queue import Close, Frame, SendQueue

CLOSE_LIMIT_S: Final = 3.0
"""How long a client may take to answer a close that cannot wait."""
BUFFER_BYTES: Final = 64 * 1024
"""Of what the connection has not taken yet: beyond it frames wait in the queue, whose bounds hold."""
_COPIED_BYTES: Final = 16 * 1024
"""A payload up to this is sent with its head in one piece; a larger one is not copied."""
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_PING: Final = b"\x89\x00"


def frame_head(first: int, size: int) -> bytes:
    """RFC 6455, 5.2: of one whole frame that is not masked."""
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class ClientWriter:
    """transport: of the client's connection, None when it is closed already."""

    def __init__(self, socket: AcceptedSocket, transport: asyncio.WriteTransport | None, send_queue: SendQueue) -> None:
        self._socket = socket
        self._transport = transport
        self._queue = send_queue
        self._task: asyncio.Task[None] | None = None
        self._limit: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Writes from now on whatever comes into the queue."""
        self._queue.on_change = self._flush
        self._flush()

    def ping(self) -> None:
        """Where nothing waits to be sent: that asks for an answer of the peer's machine as well, and a ping behind it would only wait too."""
        if self._transport is not None and not self._transport.get_write_buffer_size():
            self._transport.write(_PING)

    async def finish(self) -> None:
        """Waits for what is being written, the close included; not for long."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=CLOSE_LIMIT_S)

    async def stop(self) -> None:
        """Writes nothing any more."""
        self._queue.on_change = lambda: None
        if self._limit is not None:
            self._limit.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _flush(self) -> None:
        if self._queue.overflowed.is_set() and self._limit is None and self._transport is not None:
            self._limit = asyncio.get_running_loop().call_later(CLOSE_LIMIT_S, self._transport.abort)
        if self._task is not None and not self._task.done():
            return
        transport = self._transport
        if transport is None or transport.is_closing():
            return  # whoever reads sees the same
        while self._queue.has_frames:
            if transport.get_write_buffer_size() > BUFFER_BYTES:
                break
            frame = self._queue.take()
            assert isinstance(frame, Frame), "a close comes after all frames"
            _write(transport, frame)
        if self._queue.has_frames or self._queue.is_closed:
            self._task = asyncio.get_running_loop().create_task(self._write_all(), name="websocket writer")

    async def _write_all(self) -> None:
        """At the pace of the client."""
        try:
            while (item := self._queue.take()) is not None:
                if isinstance(item, Close):
                    await self._socket.close(code=item.code, message=item.reason.encode())
                    return
                if isinstance(item.data, str):
                    await self._socket.send_str(item.data)
                else:
                    await self._socket.send_bytes(item.data)
        except (ConnectionError, aiohttp.ClientError, RuntimeError):
            with suppress(RuntimeError):  # the client is gone: whoever reads sees it by this
                if self._transport is not None:
                    self._transport.abort()


def _write(transport: asyncio.WriteTransport, frame: Frame) -> None:
    text = isinstance(frame.data, str)
    payload = frame.data.encode() if isinstance(frame.data, str) else frame.data
    head = frame_head(_TEXT if text else _BINARY, len(payload))
    if len(payload) <= _COPIED_BYTES:
        transport.write(head + payload)
    else:
        transport.write(head)
        transport.write(payload)

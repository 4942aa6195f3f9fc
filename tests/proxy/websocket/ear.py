"""A client that takes what is on its way to it one by one, as the test asks."""

from __future__ import annotations

import asyncio

from proxy.http.websocket import Close
from proxy.http.websocket_frames import Payload
from proxy.websocket.send_queue import Message, SendQueue


class Ear:
    """The sink of a send queue."""

    def __init__(self, send_queue: SendQueue) -> None:
        self._send_queue = send_queue
        self._changed = asyncio.Event()
        send_queue.sink = self

    def takes(self, message: str | Payload, ready: Payload | None) -> bool:
        return False

    def flush(self) -> None:
        self._changed.set()

    async def next(self) -> Message | Close:
        """The next message, or the close when there is none left."""
        while (item := self._send_queue.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return item

    async def wait_for_close(self) -> None:
        while not self._send_queue.is_closed:
            self._changed.clear()
            await self._changed.wait()

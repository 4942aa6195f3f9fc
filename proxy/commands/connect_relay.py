"""Between a client on this machine and its gate far away: messages and closes pass as they are, at the pace of the slower side."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp import WSMsgType

from proxy.http.request import Request
from proxy.http.upgrade import accept
from proxy.http.websocket import Close, Hearer, WebSocket
from proxy.http.websocket_frames import Payload, may_be_sent
from proxy.websocket.client_socket import MAX_CLIENT_MESSAGE_BYTES

_GONE: Final = Close(1012, "the gate went away")
_WAITING: Final = 16
"""Messages of the client that wait for the gate before no more are read."""


async def relay(request: Request, gate: aiohttp.ClientWebSocketResponse) -> None:
    """Answers the client's upgrade and relays until either side ends. Raises ConnectionResetError when the client has gone before that."""
    client = LocalClient()
    try:
        await accept(request, client.socket)
        client.socket.start(client)
        loop = asyncio.get_running_loop()
        ways = (loop.create_task(client.send_to(gate)), loop.create_task(client.take_from(gate)))
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    finally:
        client.socket.abort()
        await gate.close(code=client.end.code, message=client.end.reason.encode())


class LocalClient(Hearer):
    """end: what the gate is told when the client has gone."""

    def __init__(self) -> None:
        self.socket = WebSocket(is_client=False, max_bytes=MAX_CLIENT_MESSAGE_BYTES)
        self.end = Close(1000, "")
        self._messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._may_write = asyncio.Event()

    async def send_to(self, gate: aiohttp.ClientWebSocketResponse) -> None:
        """What the client says, until it has ended."""
        while (data := await self._messages.get()) is not None:
            with suppress(ConnectionError, aiohttp.ClientError, RuntimeError):  # gone: take_from sees the same
                await (gate.send_str(data) if isinstance(data, str) else gate.send_bytes(data))
            if self._messages.qsize() < _WAITING:
                self.socket.resume_reading()

    async def take_from(self, gate: aiohttp.ClientWebSocketResponse) -> None:
        """What the gate says, its close too; ends when the client has answered that."""
        while (message := await gate.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.socket.send(message.data)
            while self.socket.is_write_paused:
                self._may_write.clear()
                await self._may_write.wait()
        is_said = message.type is WSMsgType.CLOSE
        code = message.data if is_said and may_be_sent(message.data or 0) else 1000
        self.socket.close(Close(code, str(message.extra or "")) if is_said else _GONE)
        await asyncio.Event().wait()  # send_to ends with the client

    # What the WebSocket calls.

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        self._messages.put_nowait(data if isinstance(data, str) else bytes(data))
        if self._messages.qsize() >= _WAITING:
            self.socket.pause_reading()

    def writable(self) -> None:
        self._may_write.set()

    def ended(self, close: Close, *, is_said: bool) -> None:
        if is_said:
            self.end = close
        self._messages.put_nowait(None)

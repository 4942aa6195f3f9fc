"""A client's WebSocket as a stream of messages."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from typing import Final

from aiohttp import WSMessage, WSMsgType

from proxy.http.request import Request
from proxy.http.websocket import ABNORMAL, Close, WebSocket

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_WAITING: Final = 64
"""Messages that wait for their reader before no more are read."""


class AcceptedSocket:
    """Receives what its client sends; what is sent goes at the client's pace."""

    def __init__(self, max_bytes: int) -> None:
        self._socket = WebSocket(is_client=False, max_bytes=max_bytes)
        self._messages: deque[WSMessage] = deque()
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self.close_code: int | None = None
        self.closed = False
        self.transport: asyncio.Transport | None = None

    async def accept(self, request: Request) -> None:
        """Answers the upgrade (RFC 6455, 4.2.2). Raises ConnectionResetError when the client has gone."""
        key = request.headers["Sec-WebSocket-Key"].encode()
        proof = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        await request.upgrade(
            self._socket, [("Upgrade", "websocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Accept", proof)]
        )
        self.transport = self._socket.transport
        self._socket.start(self)

    async def receive(self) -> WSMessage:
        while not self._messages:
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        if len(self._messages) == _WAITING:
            self._socket.resume_reading()
        return message

    async def send_str(self, data: str) -> None:
        await self._send(data)

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def _send(self, data: str | bytes) -> None:
        self._socket.send(data)
        while self._socket.is_write_paused and not self.closed:
            self._writable.clear()
            await self._writable.wait()

    async def close(self, *, code: int, message: bytes) -> None:
        self._socket.close(Close(code, message.decode()))
        while not self.closed:
            self._changed.clear()
            await self._changed.wait()

    # What the WebSocket tells.

    def received(self, data: str | bytes) -> None:
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        self._add(WSMessage(kind, data, ""))

    def received_control(self, size: int) -> None:
        self._add(WSMessage(WSMsgType.PONG, b"", ""))

    def writable(self) -> None:
        self._writable.set()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.closed = True
        self.close_code = close.code if close.code != ABNORMAL else None
        kind = WSMsgType.CLOSE if is_said else WSMsgType.CLOSED
        self._add(WSMessage(kind, close.code, close.reason))
        self._writable.set()

    def _add(self, message: WSMessage) -> None:
        self._messages.append(message)
        if len(self._messages) > _WAITING:
            self._socket.pause_reading()
        self._changed.set()

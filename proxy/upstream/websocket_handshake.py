"""Asks ComfyUI for a WebSocket (RFC 6455, 4.1), and believes the answer only where it is the one that the RFC asks for."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Final, cast

import httptools

from proxy.http.errors import UpstreamUnavailable
from proxy.http.upgrade import accept_of
from proxy.http.websocket import WebSocket

MAX_HEAD_BYTES: Final = 64 * 1024
_UNASKED: Final = frozenset({b"sec-websocket-extensions", b"sec-websocket-protocol"})


class Handshake(asyncio.Protocol):
    """For one connection, which is the WebSocket's afterwards. No extension: compressing a preview costs fifteen times the CPU."""

    def __init__(self, max_bytes: int) -> None:
        """max_bytes: of one message."""
        self._socket = WebSocket(is_client=True, max_bytes=max_bytes)
        self._key = base64.b64encode(secrets.token_bytes(16))
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._fields: dict[bytes, bytes] = {}
        self._received_bytes = 0
        self._has_head = False
        self._opened: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()

    @property
    def fields(self) -> dict[str, str]:
        """Of the call that asks."""
        return {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self._key.decode(),
        }

    async def ask(self, head: bytes) -> WebSocket:
        """On the connection that it has. Raises UpstreamUnavailable for whatever is not this WebSocket."""
        if self._transport is not None:
            self._transport.write(head)
        return await self._opened

    def abort(self) -> None:
        self._opened.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(UpstreamUnavailable())

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_accepted():
                self._hand_over(data[upgrade.args[0] :])
                return
        except httptools.HttpParserError:
            self._has_head = True
        if (self._has_head or self._received_bytes > MAX_HEAD_BYTES) and self._transport is not None:
            self._transport.abort()

    def _is_accepted(self) -> bool:
        """4.1: everything that a client has to look at."""
        fields = self._fields
        return (
            fields.get(b"upgrade", b"").lower() == b"websocket"
            and fields.get(b"sec-websocket-accept") == accept_of(self._key)
            and fields.keys().isdisjoint(_UNASKED)
        )

    def _hand_over(self, rest: bytes) -> None:
        """rest: what has come behind the head."""
        transport = self._transport
        assert transport is not None, "it has answered"
        if self._opened.done():  # whoever asked has gone
            transport.abort()
            return
        transport.set_protocol(self._socket)
        self._socket.connection_made(transport)
        if rest:
            self._socket.data_received(rest)
        self._opened.set_result(self._socket)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._fields[name] = value if name not in self._fields else b""  # said twice, it says nothing

    def on_headers_complete(self) -> None:
        self._has_head = True

"""The server's part of a WebSocket's handshake (RFC 6455, 4.2)."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from proxy.http.request import Request
from proxy.http.websocket import WebSocket

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: bytes) -> bytes:
    """4.2.2: the answer to a key, which proves that a WebSocket was understood."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


async def accept(request: Request, socket: WebSocket) -> None:
    """Answers an upgrade that may be answered, without any extension; the connection is the socket's from now on.

    Raises ConnectionResetError when the client has gone.
    """
    proof = accept_of(request.headers["Sec-WebSocket-Key"].encode()).decode()
    await request.upgrade(
        socket, (("Upgrade", "websocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Accept", proof))
    )

"""A client's or ComfyUI's connection that goes on without a request: whoever speaks on it has no task, so that an idle one costs little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from proxy.http.request import Fields, Request


class HandedOver(asyncio.BaseProtocol):
    """Whoever speaks on it is an asyncio.Protocol or BufferedProtocol besides."""

    __slots__ = ("is_write_paused", "on_lost", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        """None before there is a connection, and after it has ended."""
        self.is_write_paused = False
        self.on_lost: Callable[[], None] | None = None
        """Called when the connection is gone, for whoever counts connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes | memoryview) -> None:
        """Some bytes have come."""

    def pause_writing(self) -> None:
        self.is_write_paused = True

    def resume_writing(self) -> None:
        self.is_write_paused = False

    def pause_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing() and self.transport.is_reading():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()

    def abort(self) -> None:
        """At once: what was not sent is lost."""
        if self.transport is not None:
            self.transport.abort()


async def hand_over(request: Request, protocol: HandedOver, status: int, fields: Fields) -> None:
    """Begins an answer whose body the protocol sends, chunked where HTTP/1.1 is spoken, and which is the connection's last.

    Raises ConnectionResetError when the client has gone.
    """
    await request.begin_answer(status, (*fields, ("Connection", "close")))
    if not request.connection.is_usable:
        raise ConnectionResetError("the client has gone")
    request.has_ended = True
    request.connection.upgrade(protocol)

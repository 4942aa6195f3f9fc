"""A connection without a socket: what comes is what the test says, and what is written is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from proxy.config.server import ServerSettings
from proxy.http.connection import Connection
from proxy.http.server import Handler, public_server


class Wire(asyncio.Transport):
    """waiting: bytes that the client has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.written = b""
        self.is_aborted = self.is_closed = self.is_paused = self.has_eof = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here but what the test says."""

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.is_aborted or self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_eof = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[tuple[Connection, Wire]]:
    server = public_server(handler, ServerSettings(), nullcontext)
    connection, wire = Connection(server), Wire()
    connection.connection_made(wire)
    try:
        yield connection, wire
    finally:
        connection.connection_lost(None)
        await server.stop()

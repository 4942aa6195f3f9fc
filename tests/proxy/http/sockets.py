"""Two ends of a WebSocket on a connection of this machine, and someone who notes what one is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from proxy.http.websocket import Close, WebSocket
from proxy.http.websocket_frames import Payload

MAX_BYTES = 1024**2


@dataclass
class Notes:
    """A receiver. ends: set when the connection is gone."""

    messages: list[str | bytes] = field(default_factory=list)
    controls: list[int] = field(default_factory=list)
    end: tuple[Close, bool] | None = None
    times_writable: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        self.messages.append(data if isinstance(data, str) else bytes(data))
        self.something.set()

    def received_control(self, size: int) -> None:
        self.controls.append(size)
        self.something.set()

    def writable(self) -> None:
        self.times_writable += 1
        self.something.set()

    def ended(self, close: Close, *, is_said: bool) -> None:
        assert self.end is None, "told once"
        self.end = close, is_said
        self.ends.set()
        self.something.set()

    async def until(self, count: int) -> list[str | bytes]:
        while len(self.messages) < count:
            self.something.clear()
            await self.something.wait()
        return self.messages


@asynccontextmanager
async def raw_peer(
    *, is_client: bool = False, max_bytes: int = MAX_BYTES
) -> AsyncIterator[tuple[WebSocket, Notes, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket whose peer is the test, by bytes. is_client: the WebSocket is."""
    loop, taken = asyncio.get_running_loop(), asyncio.Queue[WebSocket]()

    def accept() -> WebSocket:
        taken.put_nowait(WebSocket(is_client=is_client, max_bytes=max_bytes))
        return taken._queue[-1]  # type: ignore[attr-defined, no-any-return]

    server = await loop.create_server(accept, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        socket, notes = await taken.get(), Notes()
        socket.start(notes)
        yield socket, notes, reader, writer
        writer.close()
        socket.abort()
        await notes.ends.wait()

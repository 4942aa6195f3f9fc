"""A relay between an SDK and the gate: it changes no byte, and keeps them all. With a certificate it is what ends TLS before the gate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from yarl import URL

from tests.v2.conversation import Exchange, exchanges_of

PIECE_BYTES = 64 * 1024


@dataclass
class _Connection:
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


@dataclass
class Recorder:
    """url: where the SDK goes. upstream: where it is relayed to."""

    upstream: str
    url: str = ""
    _connections: list[_Connection] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def exchanges(self, method: str = "", path: str = "") -> list[Exchange]:
        """All so far, by connection; of these methods and paths alone where they are given. path: its beginning."""
        found = [each for one in self._connections for each in exchanges_of(bytes(one.sent), bytes(one.received))]
        return [each for each in found if each.method.startswith(method) and each.path.startswith(path)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = URL(self.upstream)
        assert there.host is not None
        with suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection(there.host, there.port)
            connection = _Connection()
            self._connections.append(connection)
            try:
                up = asyncio.ensure_future(_pump(reader, upstream_writer, connection.sent))
                await _pump(upstream_reader, writer, connection.received)
                up.cancel()
            finally:
                upstream_writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            kept += piece
            writer.write(piece)
            await writer.drain()
    # The end of one side is told to the other: a client that leaves in the middle is a part of what is tested.
    writer.close()


@asynccontextmanager
async def recording(upstream: str, certificate: ssl.SSLContext | None = None) -> AsyncIterator[Recorder]:
    recorder = Recorder(upstream.rstrip("/"))
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, ssl=certificate)
    scheme = "http" if certificate is None else "https"
    recorder.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield recorder
    finally:
        server.close()
        await recorder.stop()

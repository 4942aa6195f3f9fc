"""Requests that never came over a wire, and handlers that are served on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import cast

from multidict import CIMultiDict

from proxy.config.server import ServerSettings
from proxy.http.connection import Connection
from proxy.http.listener import Listener
from proxy.http.request import NO_BODY, Request, RequestBody
from proxy.http.server import AcquireConnection, Handler, public_server
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import connect


class RecordingConnection:
    """Where a made request came from. written: what was said to the client. times_resumed: how often more of a body was asked for."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self.peer = peer
        self.written: list[bytes] = []
        self.times_resumed = 0
        self.is_reserved = self.has_hung_up = False
        self.party = ""

    def write(self, *parts: bytes) -> bool:
        self.written += parts
        return True

    def resume_reading(self) -> None:
        self.times_resumed += 1

    def limit_unsent(self, max_bytes: int | None) -> None:
        """Nothing waits here."""

    def data_received(self, data: bytes) -> None:
        """Nothing does."""

    def close(self) -> None:
        self.has_hung_up = True


def made_body(connection: RecordingConnection, length: int | None = None) -> RequestBody:
    """A body that the test feeds."""
    return RequestBody(cast(Connection, connection), length)


def made_request(method: str = "GET", path: str = "/queue", **headers: str) -> Request:
    """A request without a body. headers: by keyword, with `_` for `-`."""
    return _made(method, path, NO_BODY, RecordingConnection(), headers)


def made_post(body: RequestBody, connection: RecordingConnection, **headers: str) -> Request:
    return _made("POST", "/x", body, connection, headers)


def _made(
    method: str, path: str, body: RequestBody, connection: RecordingConnection, headers: Mapping[str, str]
) -> Request:
    fields = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(method, path, fields, connection=cast(Connection, connection), body=body)


async def hello(request: Request) -> None:
    await request.send(200, (("Content-Type", "text/plain"),), b"hello")


@asynccontextmanager
async def served(
    handler: Handler = hello, *, take: AcquireConnection = nullcontext, **settings: object
) -> AsyncIterator[Listener]:
    """The handler behind the server for clients. settings: of [server]."""
    server = public_server(handler, ServerSettings.model_validate(settings), take)
    listener = Listener(server, "127.0.0.1", 0, "server.port")
    await listener.start()
    try:
        async with asyncio.timeout(GUARD_S):
            yield listener
    finally:
        await listener.stop()


@asynccontextmanager
async def talking(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client's connection, by bytes."""
    reader, writer = await connect(listener.url)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()

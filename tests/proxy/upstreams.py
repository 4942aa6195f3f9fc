"""Small upstreams that do one odd thing each: servers of tests, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from policy.routes import Route, RouteTable
from policy.table import ROUTES

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
GUARD_S = 240.0
"""Ends a test that would hang; nothing is measured with it."""

_OBSERVED = {
    "/history": b"{}",
    "/queue": b'{"queue_running": [], "queue_pending": []}',
    "/api/jobs": b'{"jobs": []}',
    "/object_info": b"{}",
}


class Guarded:
    """Answers what the gate itself asks for as an idle ComfyUI does, and hands everything else to the test."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.query.get("clientId", "").startswith("comfygate-observer-"):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.receive()
            return socket
        if request.method == "GET" and request.path in _OBSERVED:
            return web.Response(body=_OBSERVED[request.path], content_type="application/json")
        return await self._answer(request)


@asynccontextmanager
async def serving(answer: Answer, **options: Any) -> AsyncIterator[str]:
    """An HTTP server whose handler is cancelled when its client leaves; gives its address."""
    server = web.Server(answer, handler_cancellation=True, access_log=None, **options)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def comfy_like(answer: Answer, **options: Any) -> AsyncIterator[str]:
    """`serving`, with the gate's own questions answered."""
    async with serving(Guarded(answer), **options) as url:
        yield url


Speak = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawUpstream:
    """A TCP server that answers with whatever bytes the test writes. heads: of the requests that came, oldest first."""

    speak: Speak
    heads: list[bytes] = field(default_factory=list)
    url: str = ""
    running: set[asyncio.Task[Any]] = field(default_factory=set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = await reader.readuntil(b"\r\n\r\n")
                if b"comfygate-observer" not in head:
                    self.heads.append(head)
                    await self.speak(head, reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            self.running.discard(task)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[RawUpstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            tasks = list(self.running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def saying(reply: bytes) -> RawUpstream:
    """An upstream that gives these bytes and hangs up."""

    async def speak(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return RawUpstream(speak)


def with_time_limit(monkeypatch: pytest.MonkeyPatch, time_limit_s: float) -> None:
    """The same table, with this time limit in every row."""
    routes: tuple[Route, ...] = tuple(replace(route, time_limit_s=time_limit_s) for route in ROUTES)
    monkeypatch.setattr("proxy.compiled_config.TABLE", RouteTable(routes))

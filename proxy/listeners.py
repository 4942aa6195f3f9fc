"""Sockets to listen on, and the HTTP servers behind them."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from aiohttp import hdrs, web

from proxy.answers import SERVER
from proxy.config.server import ServerSettings
from proxy.errors import Refusal

Take = Callable[[], AbstractContextManager[object] | None]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LINGERING_S: Final = 5.0
_READ_BUFFER_BYTES: Final = 256 * 1024
_CUT_OFF_S: Final = 0.5
_log = logging.getLogger("comfygate")


class ListenError(Exception):
    """An address cannot be listened on; the text says what to do."""


class Listener:
    """One HTTP server on one address. `port` is the real one, also when 0 was asked for."""

    def __init__(self, server: web.Server, host: str, port: int, setting: str) -> None:
        # Whoever stops a listener has waited for its requests already: what still runs is cut off.
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_CUT_OFF_S)
        self._host = host
        self._wanted_port = port
        self._setting = setting
        self._site: web.TCPSite | None = None

    @property
    def port(self) -> int:
        addresses = self._runner.addresses
        return int(addresses[0][1]) if addresses else self._wanted_port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Raises ListenError."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._wanted_port, backlog=1024)
        try:
            await self._site.start()
        except OSError as error:
            await self._runner.cleanup()
            address = f"{self._host}:{self._wanted_port}"
            if error.errno == errno.EADDRINUSE:
                raise ListenError(
                    f"{address} is already in use: stop what listens there, or change {self._setting} in config.toml"
                ) from None
            raise ListenError(f"cannot listen on {address} ({self._setting}): {error.strerror or error}") from None

    async def stop_accepting(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def stop(self) -> None:
        await self._runner.cleanup()


class _Connection(web.RequestHandler):
    """Closed when a head that was begun is not whole in time; the first one counts as begun with the connection.

    aiohttp would wait for either as long as for a connection that is idle between two requests.
    """

    __slots__ = ("_head_timer", "_header_timeout_s")

    def __init__(self, manager: web.Server, *, header_timeout_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_timeout_s = header_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(self._header_timeout_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._header_timeout_s, self._give_up)
        elif self._request_count:
            self._stop_timer()

    def _give_up(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is not HTTP, which never becomes a call.

        SECURITY: aiohttp would log and send back the line that it could not read, and a key may stand in it. test_malformed.py::test_keys_stay_out
        """
        _log.debug("a request from %s could not be read: %s", request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        refusal = Refusal(status, "request-malformed", "This is not a well-formed HTTP/1.1 request.")
        request_id = secrets.token_hex(8)
        response = web.Response(
            status=status, body=refusal.body(request_id), content_type="application/json", headers={hdrs.SERVER: SERVER}
        )
        response.headers["X-Request-Id"] = request_id
        response.headers[hdrs.CACHE_CONTROL] = "private, no-store"
        response.force_close()
        return response


class BoundedServer(web.Server):
    """A server that takes so many connections and no more, and closes those whose heads do not come in time."""

    def __init__(self, handler: Handler, *, take: Take, header_timeout_s: float, **options: Any) -> None:
        super().__init__(handler, **options)
        self._options = {name: value for name, value in options.items() if name != "handler_cancellation"}
        self._take = take
        self._header_timeout_s = header_timeout_s
        self._held: dict[web.RequestHandler, AbstractContextManager[object]] = {}

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, header_timeout_s=self._header_timeout_s, **self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        place = self._take()
        if place is None:
            transport.abort()
            return
        place.__enter__()
        self._held[handler] = place

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        place = self._held.pop(handler, None)
        if place is not None:
            place.__exit__(None, None, None)


def public_server(handler: Handler, settings: ServerSettings, take: Take) -> web.Server:
    """The server for clients: no body is decompressed, and a client that leaves cancels what it asked for.

    take: a place for one more connection, None when there is none left.
    """
    return BoundedServer(
        handler,
        take=take,
        header_timeout_s=settings.header_timeout,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=settings.keepalive_timeout,
        max_line_size=16 * 1024,
        max_field_size=min(16 * 1024, settings.max_header_bytes),
        auto_decompress=False,
        lingering_time=_LINGERING_S,
        read_bufsize=_READ_BUFFER_BYTES,
        tcp_keepalive=True,
    )

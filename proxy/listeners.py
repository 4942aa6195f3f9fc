"""Sockets to listen on, and the HTTP servers behind them."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from proxy.config.server import ServerSettings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LINGERING_S: Final = 5.0
_READ_BUFFER_BYTES: Final = 256 * 1024


class ListenError(Exception):
    """An address cannot be listened on; the text says what to do."""


class Listener:
    """One HTTP server on one address. `port` is the real one, also when 0 was asked for."""

    def __init__(self, server: web.Server, host: str, port: int, setting: str) -> None:
        self._runner = web.ServerRunner(server, handle_signals=False)
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


def public_server(handler: Handler, settings: ServerSettings) -> web.Server:
    """The server for clients: no body is decompressed, and a client that leaves cancels what it asked for."""
    return web.Server(
        handler,
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

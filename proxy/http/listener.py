"""An address to listen on."""

from __future__ import annotations

import asyncio
import errno

from proxy.http.server import Server


class ListenError(Exception):
    """An address cannot be listened on; the text says what to do."""


class Listener:
    """One HTTP server on one address. `port` is the real one, also when 0 was asked for."""

    def __init__(self, server: Server, host: str, port: int, setting: str) -> None:
        self._server = server
        self._host = host
        self._wanted_port = port
        self._setting = setting
        self._bound: asyncio.Server | None = None
        self._port = port

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Raises ListenError."""
        try:
            self._bound = await self._server.listen(self._host, self._wanted_port)
        except OSError as error:
            address = f"{self._host}:{self._wanted_port}"
            if error.errno == errno.EADDRINUSE:
                raise ListenError(
                    f"{address} is already in use: stop what listens there, or change {self._setting} in config.toml"
                ) from None
            raise ListenError(f"cannot listen on {address} ({self._setting}): {error.strerror or error}") from None
        self._port = int(self._bound.sockets[0].getsockname()[1])

    async def stop_accepting(self) -> None:
        if self._bound is not None:
            self._bound.close()
            self._bound = None

    async def stop(self) -> None:
        await self.stop_accepting()
        await self._server.stop()

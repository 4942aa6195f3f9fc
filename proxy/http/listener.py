"""An address to listen on."""

from __future__ import annotations

import errno
from typing import Final

from aiohttp import web

_CUT_OFF_S: Final = 0.5


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

"""An address to listen on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

from proxy.http.server import Server, until_connected


class ListenError(Exception):
    """An address cannot be listened on; the text says what to do."""


class Listener:
    """One HTTP server on one address. `port` is the real one, also when 0 was asked for.

    passed: sockets that listen there already; they go on listening when this process has closed its own descriptors of them.
    """

    def __init__(
        self, server: Server, host: str, port: int, setting: str, passed: Sequence[socket.socket] = ()
    ) -> None:
        self._server = server
        self._host = host
        self._wanted_port = port
        self._setting = setting
        self._passed = tuple(passed)
        self._bound: list[asyncio.Server] = []
        self._port = port

    @property
    def port(self) -> int:
        return self._port

    @property
    def is_passed(self) -> bool:
        """Whether who connects while the gate does not run waits, and is not refused."""
        return bool(self._passed)

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Raises ListenError."""
        try:
            places = self._passed or ((self._host, self._wanted_port),)
            self._bound = [await self._server.listen(place) for place in places]
        except OSError as error:
            address = f"{self._host}:{self._wanted_port}"
            if error.errno == errno.EADDRINUSE:
                raise ListenError(
                    f"{address} is already in use: stop what listens there, or change {self._setting} in config.toml"
                ) from None
            raise ListenError(f"cannot listen on {address} ({self._setting}): {error.strerror or error}") from None
        self._port = int(self._bound[0].sockets[0].getsockname()[1])

    async def stop_accepting(self) -> None:
        """Takes no more connections; each answer from now on is the last one of its connection, and says so."""
        self._server.is_draining = True
        self._server.hurry()
        bound, self._bound = self._bound, []
        for each in bound:
            if self._passed and isinstance(each, asyncio.Server):
                await _let_in(each)
            each.close()

    async def wind_down(self, limit_s: float) -> bool:
        """Goes on accepting until the connections that there are have ended, and no later one is slow; each answer from now on is the last one of its
        connection, and says so. When the limit is over, cuts off those that there were, and says False.
        """
        return await self._server.wind_down(limit_s)

    async def drain(self) -> None:
        """Returns when all connections have ended, each in order."""
        await self._server.drain()

    async def stop(self) -> None:
        await self.stop_accepting()
        await self._server.stop()


async def _let_in(bound: asyncio.Server) -> None:
    """Accepts no more, and makes connections of what was accepted: asyncio's own loop loses them with the asyncio.Server. uvloop makes them at once."""
    for each in bound.sockets:
        asyncio.get_running_loop().remove_reader(each.fileno())
    await until_connected()

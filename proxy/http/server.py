"""The HTTP server for clients: how many connections, and how slowly each may send and read."""

from __future__ import annotations

import asyncio
import math
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Final

from proxy.config.server import ServerSettings
from proxy.http.client_limits import ClientLimits
from proxy.http.connection import Connection, cut_off, is_slow
from proxy.http.departures import Departures
from proxy.http.handed_over import HandedOver
from proxy.http.request import Request
from proxy.http.unread import Unread

AcquireConnection = Callable[[], AbstractContextManager[object] | None]
Handler = Callable[[Request], Awaitable[None]]

_LINGERING_S: Final = 5.0
_UNPROVEN_IDLE_S: Final = 10.0
RESERVED: Final = 8
"""Connections beyond `max_connections`, for /gate/health: an edge that hears nothing takes the gate for dead."""
HEALTH_PATH: Final = "/gate/health"
_LOOKED_AT: Final = 64
_BACKLOG: Final = 4096
"""So many wait to be accepted: while a gate is started again, everybody who connects. The system may bound it lower (net.core.somaxconn)."""
_CUT_OFF_S: Final = 0.5
DRAIN_IDLE_S: Final = 5.0
"""For the last request of an idle connection: to close one under a request breaks it. HTTP clients use one that was idle for longer no more
(httpx 5 s, undici 4 s), or ask again by themselves (browsers)."""
_ACCEPTED_TURNS: Final = 4
"""Until what was accepted is a connection: three turns of asyncio's own loop, one of uvloop."""


class Server:
    """A server that takes so many connections, and a few more for /gate/health; idle ones give way to new ones.

    handler: answers a request, whatever goes wrong. take: a place for one more connection, None when there is none left.
    Looks at its connections from time to time and hangs up on clients that take too long.
    """

    def __init__(self, handler: Handler, limits: ClientLimits, max_head_bytes: int, take: AcquireConnection) -> None:
        self.handler = handler
        self.max_head_bytes = max_head_bytes
        self.loop = asyncio.get_running_loop()
        self._limits = limits
        self._take = take
        self._held: OrderedDict[Connection, AbstractContextManager[object]] = OrderedDict()
        self._open: dict[Connection, float] = {}
        """Since when, in the loop's seconds."""
        self._upgraded: dict[HandedOver, AbstractContextManager[object] | None] = {}
        self._reserved: dict[Connection, None] = {}
        self._unread = Unread()
        self._next_look: asyncio.TimerHandle | None = None
        self._departures = Departures()
        self.is_draining = False
        """Each answer is its connection's last, unless the next request has come already."""
        self._strangers_leave_s = math.inf
        """Not before; each connection has some time of its own besides."""

    async def listen(self, where: tuple[str, int] | socket.socket) -> asyncio.Server:
        """where: host and port, or a socket that listens already. Raises OSError."""
        if isinstance(where, socket.socket):
            return _alive(await self.loop.create_server(lambda: Connection(self), sock=where, backlog=_BACKLOG))
        return _alive(await self.loop.create_server(lambda: Connection(self), *where, backlog=_BACKLOG))

    async def wind_down(self, limit_s: float) -> bool:
        """Answers whoever comes, on each connection once. Returns when the connections that there were have ended, and of later ones none is slow.
        When the limit is over, cuts off those that there were, and says False.
        """
        self.is_draining = True
        self.hurry()
        open_before, upgraded_before = set(self._open), set(self._upgraded)
        try:
            async with asyncio.timeout(limit_s):
                waited_for: set[object] = {*open_before, *upgraded_before}
                while waited_for:
                    await self._departures.wait(waited_for)
                    now_s = self.loop.time()
                    waited_for = {each for each, since_s in self._open.items() if is_slow(each, now_s - since_s)}
        except TimeoutError:
            open_before &= self._open.keys()
            upgraded_before &= self._upgraded.keys()
            for connection in open_before:
                cut_off(connection)
            for protocol in upgraded_before:
                protocol.abort()
            return not open_before and not upgraded_before
        return True

    async def drain(self) -> None:
        """Ends in order: what is asked on the connections that there are is answered, and who does not ask for a while is hung up on. Returns when
        none is left.
        """
        await until_connected()
        self.hurry()
        while left := {*self._open, *self._upgraded}:
            await self._departures.wait(left)

    def hurry(self) -> None:
        """Waits no longer than DRAIN_IDLE_S for idle connections, and for strangers that hold it up.

        SECURITY: else a stranger with half a body, or an answer that it does not read, makes everybody wait who connects meanwhile
        (tests/proxy/http/test_draining.py).
        """
        if self._strangers_leave_s < math.inf:
            return
        self._strangers_leave_s = self.loop.time() + DRAIN_IDLE_S
        now = self._limits
        self._limits = replace(
            now,
            header_s=min(now.header_s, DRAIN_IDLE_S),
            keepalive_s=min(now.keepalive_s, DRAIN_IDLE_S),
            unproven_idle_s=min(now.unproven_idle_s, DRAIN_IDLE_S),
        )
        if self._next_look is not None:
            self._next_look.cancel()
            self._look()

    async def stop(self) -> None:
        """Whoever stops a server has waited for its requests already: what still runs is cut off."""
        if self._next_look is not None:
            self._next_look.cancel()
        for connection in tuple(self._open):
            cut_off(connection)
        for protocol in tuple(self._upgraded):
            protocol.abort()
        while left := {*self._open, *self._upgraded}:
            try:
                async with asyncio.timeout(_CUT_OFF_S):
                    await self._departures.wait(left)
            except TimeoutError:
                return

    def connected(self, connection: Connection) -> None:
        self._open[connection] = self.loop.time()
        if self._next_look is None:
            self._next_look = self.loop.call_later(self._limits.look_every_s, self._look)
        place = self._take()
        if place is None and self._make_room():
            place = self._take()
        if place is not None:
            place.__enter__()
            self._held[connection] = place
        else:
            self._reserve(connection)

    def disconnected(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        self._reserved.pop(connection, None)
        self.keeps(connection, 0)
        self._release(connection)
        self._departures.ended(connection)

    def keeps(self, connection: Connection, size: int) -> None:
        """So many bytes of it wait to be read."""
        self._unread.keep(connection, size)

    def upgraded(self, connection: Connection, protocol: HandedOver) -> None:
        """The connection speaks another protocol from now on, and keeps its place until it ends."""
        place = self._held.pop(connection, None)
        self._open.pop(connection, None)
        self.keeps(connection, 0)
        self._departures.ended(connection)
        self._upgraded[protocol] = place
        protocol.on_lost = partial(self._left, protocol)

    def _left(self, protocol: HandedOver) -> None:
        place = self._upgraded.pop(protocol, None)
        if place is not None:
            place.__exit__(None, None, None)
        self._departures.ended(protocol)

    def _release(self, connection: Connection) -> None:
        place = self._held.pop(connection, None)
        if place is not None:
            place.__exit__(None, None, None)

    def _make_room(self) -> bool:
        """Hangs up on one connection that gives way, of those looked at least lately; says whether there was one.

        SECURITY: else whoever opens connections and sends nothing, or half a body, shuts out everybody (tests/security/test_connections.py).
        """
        for _ in range(min(len(self._held), _LOOKED_AT)):
            connection = next(iter(self._held))
            if connection.gives_way:
                self._release(connection)
                connection.close()
                return True
            self._held.move_to_end(connection)
        return False

    def _reserve(self, connection: Connection) -> None:
        """A place for /gate/health; of those that have one, the oldest that gives way does."""
        connection.is_reserved = True
        if len(self._reserved) >= RESERVED:
            idle = next((other for other in self._reserved if other.gives_way), None)
            if idle is None:
                connection.close()
                return
            del self._reserved[idle]
            idle.close()
        self._reserved[connection] = None

    def _look(self) -> None:
        self._next_look = None
        now_s = self.loop.time()
        for connection, since_s in tuple(self._open.items()):
            leaves_s = max(self._strangers_leave_s, since_s + DRAIN_IDLE_S)
            if now_s > leaves_s and connection.gives_way and not connection.party:
                connection.close()
            else:
                connection.look(now_s, self._limits)
        if self._open:
            self._next_look = self.loop.call_later(self._limits.look_every_s, self._look)


async def until_connected() -> None:
    """Until the protocols of all connections that were accepted know of them."""
    for _ in range(_ACCEPTED_TURNS):
        await asyncio.sleep(0)


def _alive(bound: asyncio.Server) -> asyncio.Server:
    for each in bound.sockets:  # what is accepted there has it too
        each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return bound


def ops_server(handler: Handler) -> Server:
    """The server for health and metrics."""
    settings = ServerSettings()
    return public_server(handler, settings, nullcontext)


def public_server(handler: Handler, settings: ServerSettings, take: AcquireConnection) -> Server:
    """The server for clients: no body is decompressed, and a client that leaves cancels what it asked for."""
    limits = ClientLimits(
        stall_s=settings.body_timeout,
        bytes_per_second=settings.min_body_bytes_per_second,
        header_s=settings.header_timeout,
        keepalive_s=settings.keepalive_timeout,
        unproven_idle_s=_UNPROVEN_IDLE_S,
        lingering_s=_LINGERING_S,
    )
    return Server(handler, limits, settings.max_header_bytes, take)

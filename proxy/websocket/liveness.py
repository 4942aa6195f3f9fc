"""Whether the peer of a WebSocket is still there. A program that computes for minutes answers no ping, yet its machine takes what is sent."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

PING_INTERVAL_S: Final = 30.0
UNACKNOWLEDGED_S: Final = 45.0
"""A peer is dead when its machine has acknowledged nothing for so long, though something was sent."""
SILENCE_S: Final = 300.0
"""A peer that answers no ping for so long is given up, whatever its machine does."""

# struct tcp_info of Linux (linux/tcp.h): eight bytes, then numbers of four; tcpi_last_ack_recv is the thirteenth, in ms.
_LAST_ACK: Final = struct.Struct("=56xI")


class Life:
    """What is known of one peer. transport: of its connection, None when it is closed already."""

    def __init__(
        self,
        transport: asyncio.WriteTransport | None,
        acknowledged_s: Callable[[asyncio.WriteTransport], float | None] | None = None,
    ) -> None:
        """acknowledged_s: see since_acknowledged_s."""
        self._transport = transport
        self._since_acknowledged_s = acknowledged_s or since_acknowledged_s
        self._clock = asyncio.get_running_loop().time
        self._heard_at_s = self._clock()
        self._ping: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Something came from the peer."""
        self._heard_at_s = self._clock()

    def watch(self, ping: Callable[[], None]) -> None:
        """Pings by the clock, until stop(); breaks the connection off when the peer is dead: nobody is there to close with."""
        self._ping = ping
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self.is_dead():
            if self._transport is not None:
                self._transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._ping()
        self._look()

    def is_dead(self) -> bool:
        if self._transport is None or self._clock() - self._heard_at_s > SILENCE_S:
            return True
        acknowledged_s = self._since_acknowledged_s(self._transport)
        return acknowledged_s is not None and acknowledged_s > UNACKNOWLEDGED_S


def since_acknowledged_s(transport: asyncio.WriteTransport) -> float | None:
    """Seconds since the peer's machine has last acknowledged anything; None where the system does not tell."""
    wire = transport.get_extra_info("socket")
    if wire is None or not sys.platform.startswith("linux"):
        return None
    try:
        info = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.size)
        (milliseconds,) = _LAST_ACK.unpack(info)
    except (OSError, struct.error):
        return None
    return float(milliseconds) / 1000

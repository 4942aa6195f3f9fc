"""Whether the peers of WebSockets are still there. A program that computes for minutes answers no ping, yet its machine takes what is sent."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

from proxy.http.websocket import WebSocket

PING_INTERVAL_S: Final = 30.0
UNACKNOWLEDGED_S: Final = 45.0
"""A peer is dead when its machine has acknowledged nothing for so long, though something was sent."""
_STEPS: Final = 30
"""The sockets are looked at in so many groups, one after the other: thousands at once would hold the event loop."""

# struct tcp_info of Linux (linux/tcp.h): eight bytes, then numbers of four; tcpi_last_ack_recv is the thirteenth, in ms.
_LAST_ACK: Final = struct.Struct("=56xI")


class Heartbeat:
    """Pings each socket once in PING_INTERVAL_S, all by one timer, and breaks off those whose peer is dead: nobody is there to close with."""

    def __init__(self, silence_s: float) -> None:
        """silence_s: a peer from which nothing came for so long is given up, whatever its machine does."""
        self._silence_s = silence_s
        self._groups: list[set[WebSocket]] = [set() for _ in range(_STEPS)]
        self._at = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watched: WebSocket) -> None:
        """From now on, as long as it has a connection."""
        self._groups[self._at - 1].add(watched)  # the last to be looked at
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Breaks all of them off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for group in self._groups:
            for watched in group:
                watched.abort()
            group.clear()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PING_INTERVAL_S / _STEPS, self._step)

    def _step(self) -> None:
        group, self._at = self._groups[self._at], (self._at + 1) % _STEPS
        for watched in tuple(group):
            watched.silent_looks += 1
            if watched.transport is None:
                group.discard(watched)
            elif is_dead(watched, watched.transport, self._silence_s):
                watched.abort()
            else:
                watched.ping()
        self._timer = None
        if any(self._groups):
            self._wait()


def is_dead(watched: WebSocket, transport: asyncio.WriteTransport, silence_s: float) -> bool:
    if (watched.silent_looks - 1) * PING_INTERVAL_S >= silence_s:
        return True
    acknowledged_s = since_acknowledged_s(transport)
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

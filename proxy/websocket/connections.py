"""The open WebSockets and event streams of clients: counted, and closed when the gate stops or a credential dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from policy.principal import Principal
from proxy.http.websocket import Close
from proxy.upstream.client import MAX_EVENT_BYTES

GATE_STOPS = Close(1001, "the gate is stopping")
GOING_AWAY = Close(1000, "")
UPSTREAM_GONE = Close(1012, "ComfyUI went away")
EVENT_TOO_BIG = Close(1009, f"ComfyUI sent an event of more than {MAX_EVENT_BYTES // 1024**2} MiB")
TOO_MANY_MESSAGES = Close(1008, "too many messages")
CREDENTIAL_DEAD = Close(4401, "the credential is no longer valid")


class Sending(Protocol):
    """What is sent to a client, for as long as it likes: a WebSocket's send queue, or a stream of events."""

    sent_frames: int
    sent_bytes: int
    dropped_previews: int

    def close(self, close: Close, *, at_once: bool = False) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Socket:
    principal: Principal
    send_queue: Sending


@dataclass(slots=True)
class SocketStats:
    """Of all sockets since the start. Texts are counted in characters, which for ComfyUI's events are bytes."""

    sent_frames: int = 0
    sent_bytes: int = 0
    dropped_previews: int = 0

    def add(self, send_queue: Sending) -> None:
        self.sent_frames += send_queue.sent_frames
        self.sent_bytes += send_queue.sent_bytes
        self.dropped_previews += send_queue.dropped_previews


class ConnectionRegistry:
    def __init__(self) -> None:
        self._ended = SocketStats()
        self._open: set[Socket] = set()
        self._end: Close | None = None

    def __len__(self) -> int:
        return len(self._open)

    def register(self, principal: Principal, send_queue: Sending) -> Socket:
        """It is open from now on, until `remove`."""
        socket = Socket(principal, send_queue)
        self._open.add(socket)
        if self._end is not None:
            send_queue.close(self._end, at_once=True)
        return socket

    def remove(self, socket: Socket) -> None:
        self._open.discard(socket)
        self._ended.add(socket.send_queue)

    def traffic(self) -> SocketStats:
        total = replace(self._ended)
        for socket in self._open:
            total.add(socket.send_queue)
        return total

    def close_all(self, close: Close) -> None:
        """Closes those that are open, and those that are opened later as soon as they are."""
        self._end = close
        self.close_open(close)

    def close_open(self, close: Close) -> None:
        for socket in self._open:
            socket.send_queue.close(close, at_once=True)

    def close_revoked(self, is_alive: Callable[[Principal], bool]) -> int:
        """Closes the sockets whose credential was revoked or ran out; says how many."""
        dead = [socket for socket in self._open if not is_alive(socket.principal)]
        for socket in dead:
            socket.send_queue.close(CREDENTIAL_DEAD, at_once=True)
        return len(dead)

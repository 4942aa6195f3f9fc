"""A client's WebSocket: writes what is on its way to it as fast as it is taken. It has no task, so that an idle one costs little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from proxy.http.websocket import Close, WebSocket
from proxy.http.websocket_frames import Payload
from proxy.websocket.send_queue import SendQueue

MAX_CLIENT_MESSAGE_BYTES: Final = 4 * 1024**2
"""What ComfyUI itself takes from a client (comfyui-api E.5)."""

_log = logging.getLogger("comfygate")


class ClientSocket:
    """The sink of its send queue and the receiver of its WebSocket. Who hears the client is a class of its own."""

    __slots__ = ("_at_end", "has_ended", "send_queue", "socket")

    def __init__(self, send_queue: SendQueue) -> None:
        self.socket = WebSocket(is_client=False, max_bytes=MAX_CLIENT_MESSAGE_BYTES)
        self.send_queue = send_queue
        self.has_ended = False
        self._at_end: list[Callable[[], None]] = []

    def open(self) -> None:
        """The upgrade was answered: what waits is written, and what comes is read."""
        self.send_queue.sink = self
        self.flush()
        self.socket.start(self)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Called when the connection is gone, after those that were given before."""
        if self.has_ended:
            callback()
        else:
            self._at_end.append(callback)

    # What the send queue calls.

    def takes(self, message: str | Payload, ready: Payload | None) -> bool:
        socket = self.socket
        if socket.is_write_paused:
            return False
        if ready is not None:
            socket.write_ready(ready)
        else:
            socket.send(message)
        return True

    def flush(self) -> None:
        queue, socket = self.send_queue, self.socket
        while queue.ends_at_once or not socket.is_write_paused:
            item = queue.take()
            if item is None:
                return
            if isinstance(item, Close):
                socket.close(item)
                return
            socket.send(item)

    # What the WebSocket calls.

    def received(self, data: str | Payload, frame: Payload | None) -> None:
        """Nobody hears it."""

    def received_control(self, size: int) -> None:
        """Nobody counts it."""

    def writable(self) -> None:
        self.flush()

    def ended(self, close: Close, *, is_said: bool) -> None:
        self.send_queue.sink = None
        self.has_ended = True
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # what else was held is given back all the same
                _log.exception("a WebSocket has ended badly")

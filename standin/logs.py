"""The last lines that the server printed, and their stream to whatever client ids somebody subscribed."""

from __future__ import annotations

from collections import deque
from typing import Any

from standin.events import Events

CAPACITY = 300
SIZE = {"cols": 80, "rows": 24}


class LogBuffer:
    def __init__(self, events: Events) -> None:
        self._events = events
        self._is_size_known = False
        self.entries: deque[dict[str, str]] = deque(maxlen=CAPACITY)
        self.subscribers: set[Any] = set()

    def write(self, time: str, message: str) -> None:
        entry = {"t": time, "m": message}
        self.entries.append(entry)
        for client_id in list(self.subscribers):
            if client_id not in self._events.sockets:
                self.subscribers.discard(client_id)
                continue
            self._events.send("logs", {"entries": [entry], "size": self.changed_size()}, client_id)

    def changed_size(self) -> dict[str, int] | None:
        """The terminal's size the first time, then None: it never changes here."""
        if self._is_size_known:
            return None
        self._is_size_known = True
        return SIZE

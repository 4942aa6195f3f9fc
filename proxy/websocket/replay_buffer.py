"""The text events that a client may have missed while it had no connection."""

from __future__ import annotations

from collections import deque
from typing import Final

from policy.rules.events import ENDS, PROGRESS

MAX_KEPT_EVENTS: Final = 2000
MAX_KEPT_BYTES: Final = 4 * 1024**2
MAX_STATE_BYTES: Final = 256 * 1024
"""Of one that tells a whole state. A larger one is not kept: it comes again."""


class ReplayBuffer:
    """The text events of the job that runs, or ran last: what a client that lost its connection may have missed.

    Bounded: MAX_KEPT_BYTES, and behind them MAX_STATE_BYTES of each kind that tells a whole state.
    """

    __slots__ = ("_bytes", "_events", "_is_dropped", "_is_over", "_newest")

    def __init__(self) -> None:
        self._events: deque[tuple[str, str]] | None = None
        """None where there are none, as of a client that only looks."""
        self._newest: dict[str, str] = {}
        """Behind those, by kind: each tells a whole state, and the newest of a kind is enough. ComfyUI's two kinds come by turns."""
        self._bytes = 0
        """Of `_events`."""
        self._is_over = self._is_dropped = False

    def keep(self, kind: str, text: str) -> None:
        if kind in PROGRESS:
            if not self._is_dropped and len(text) <= MAX_STATE_BYTES:
                self._newest[kind] = text
            return
        if kind == "execution_start":
            self._clear()
            self._is_over = self._is_dropped = False
        if not self._is_dropped:
            self._append(kind, text)

    def _append(self, kind: str, text: str) -> None:
        events = self._events = self._events or deque()
        for event in (*self._newest.items(), (kind, text)):
            events.append(event)
            self._bytes += len(event[1])
        self._newest = {}
        self._is_over = self._is_over or kind in ENDS
        while len(events) > MAX_KEPT_EVENTS or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(events.popleft()[1])

    def drop_what_ended(self) -> None:
        """Nothing of a job that has ended is kept any more, nor what still comes of it."""
        if self._is_over:
            self._clear()
            self._is_dropped = True

    def texts(self) -> list[str]:
        return [*(text for _, text in self._events or ()), *self._newest.values()]

    def _clear(self) -> None:
        self._events = None
        self._newest = {}
        self._bytes = 0

"""Somebody who waits for the end of one job, and is told nothing else of it. It has no task and no timer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from policy.v2.links import Links
from proxy.http.websocket import Close
from proxy.v2.event_stream import Piece


class JobEnd:
    """has_come: done when there is no more to wait for; its result is whether the job has ended."""

    hears_progress: ClassVar[bool] = False
    __slots__ = ("_at_end", "dropped_previews", "has_come", "links", "sent_bytes", "sent_frames")

    def __init__(self) -> None:
        self.has_come: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.links = Links()
        self._at_end: list[Callable[[], None]] = []
        self.sent_frames = self.sent_bytes = self.dropped_previews = 0

    @property
    def is_open(self) -> bool:
        return not self.has_come.done()

    def at_end(self, callback: Callable[[], None]) -> None:
        """Called by `leave`."""
        self._at_end.append(callback)

    def leave(self) -> None:
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            callback()

    def send(self, piece: Piece) -> None:
        return

    def offer(self, kind: str, piece: Piece) -> None:
        return

    def finish(self, last: Piece | None = None) -> None:
        self._come(has_ended=True)

    def close(self, close: Close, *, at_once: bool = False) -> None:
        """The gate stops, or the credential has ended."""
        self._come(has_ended=False)

    def give_up(self) -> None:
        """Nobody waits any longer."""
        self._come(has_ended=False)

    def _come(self, *, has_ended: bool) -> None:
        if not self.has_come.done():
            self.has_come.set_result(has_ended)

"""Somebody who waits for the end of one job, and is told nothing else of it. It has no task and no timer of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import ClassVar, Final

from policy.v2.links import Links
from proxy.http.websocket import Close
from proxy.v2.event_stream import Piece

TICKS_PER_S: Final = 4
_NO_LINKS: Final = Links()


class JobEnd:
    """has_come: done when there is no more to wait for; its result is whether the job has ended."""

    hears_progress: ClassVar[bool] = False
    __slots__ = ("_at_end", "dropped_previews", "has_come", "links", "sent_bytes", "sent_frames")

    def __init__(self) -> None:
        self.has_come: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.links = _NO_LINKS
        self._at_end: tuple[Callable[[], None], ...] = ()
        self.sent_frames = self.sent_bytes = self.dropped_previews = 0

    @property
    def is_open(self) -> bool:
        return not self.has_come.done()

    def at_end(self, callback: Callable[[], None]) -> None:
        """Called by `leave`."""
        self._at_end += (callback,)

    def leave(self) -> None:
        callbacks, self._at_end = self._at_end, ()
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


class Deadlines:
    """When those give up who wait: at most a tick later than they said. All of one tick share a timer; one of the loop's own, with its context, takes as
    much memory as everything else of a wait."""

    def __init__(self) -> None:
        self._ticks: dict[int, tuple[asyncio.TimerHandle, dict[JobEnd, None]]] = {}

    def __len__(self) -> int:
        """How many timers there are."""
        return len(self._ticks)

    def add(self, end: JobEnd, limit_s: float) -> int:
        """The tick at which it gives up, until `discard`."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + limit_s) * TICKS_PER_S)
        if tick not in self._ticks:
            self._ticks[tick] = (loop.call_at(tick / TICKS_PER_S, self._come, tick), {})
        self._ticks[tick][1][end] = None
        return tick

    def discard(self, tick: int, end: JobEnd) -> None:
        """It waits no longer; a second time does nothing."""
        if tick not in self._ticks:
            return
        timer, ends = self._ticks[tick]
        ends.pop(end, None)
        if not ends:
            timer.cancel()
            del self._ticks[tick]

    def _come(self, tick: int) -> None:
        _, ends = self._ticks.pop(tick)
        for end in ends:
            end.give_up()

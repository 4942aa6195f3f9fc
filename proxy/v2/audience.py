"""Those who follow one job. What they are told is made once, and the same bytes go to all; how often, does not depend on how many they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from policy.v2.links import Links
from proxy.v2.event_stream import Piece, Viewer

PACE_S: Final = 0.5
"""Between two that tell how far a job is; of those in between the newest is sent, so that the last one always is."""


class Audience:
    """tell: called with the kinds of what has changed, when it is time to tell of it."""

    __slots__ = ("_changed", "_pace", "_streams", "_tell")

    def __init__(self, tell: Callable[[frozenset[str]], None]) -> None:
        self._tell = tell
        self._streams: dict[Viewer, None] = {}
        self._changed: dict[str, None] = {}
        self._pace: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._streams)

    def join(self, stream: Viewer) -> None:
        """It is told all from now on, until `leave`."""
        self._streams[stream] = None

    def leave(self, stream: Viewer) -> None:
        self._streams.pop(stream, None)
        if not self._streams:
            self.rest()

    def send(self, event: bytes) -> None:
        """What must not be lost."""
        piece = Piece(event)
        for stream in tuple(self._streams):
            stream.send(piece)

    def send_with_links(self, write: Callable[[Links], bytes]) -> None:
        """What names addresses, which are not the same for all."""
        pieces: dict[Links, Piece] = {}
        for stream in tuple(self._streams):
            if stream.links not in pieces:
                pieces[stream.links] = Piece(write(stream.links))
            stream.send(pieces[stream.links])

    def offer(self, kind: str, event: bytes) -> None:
        """What tells a whole state of its kind: see `Viewer.offer`."""
        piece = Piece(event)
        for stream in tuple(self._streams):
            stream.offer(kind, piece)

    def finish(self, last: bytes | None) -> None:
        piece = None if last is None else Piece(last)
        for stream in tuple(self._streams):
            stream.finish(piece)

    def changed(self, kind: str) -> None:
        """Something of this kind is to be told: now, or when it is time."""
        if self._streams:
            self._changed[kind] = None
            if self._pace is None:
                self._tell_changes()

    def rest(self) -> None:
        """Nothing more is told by the clock."""
        self._changed.clear()
        if self._pace is not None:
            self._pace.cancel()
            self._pace = None

    def _tell_changes(self) -> None:
        changed = frozenset(self._changed)
        self._changed.clear()
        self._pace = asyncio.get_running_loop().call_later(PACE_S, self._paced)
        self._tell(changed)

    def _paced(self) -> None:
        self._pace = None
        if self._changed:
            self._tell_changes()

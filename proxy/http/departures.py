"""Waits until connections have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Departures:
    """One wait at a time: a second one takes the place of the first, which returns with it."""

    def __init__(self) -> None:
        self._awaited: set[object] = set()
        self._all_ended = asyncio.Event()

    def ended(self, each: object) -> None:
        self._awaited.discard(each)
        if not self._awaited:
            self._all_ended.set()

    async def wait(self, those: Iterable[object]) -> None:
        """Until each of those has ended."""
        self._awaited = set(those)
        if self._awaited:
            self._all_ended.clear()
            await self._all_ended.wait()

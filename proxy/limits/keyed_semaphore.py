"""One at a time per tenant (or whatever else), for rules that read, change and write back; or a few, where answers are large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class KeyedSemaphore:
    """Places that exist only while somebody holds or wants them. places: of each holder."""

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._locks: dict[Hashable, asyncio.Semaphore] = {}
        self._wanted: dict[Hashable, int] = {}

    @asynccontextmanager
    async def of(self, holder: Hashable) -> AsyncIterator[None]:
        lock = self._locks.setdefault(holder, asyncio.Semaphore(self._places))
        self._wanted[holder] = self._wanted.get(holder, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[holder] -= 1
            if not self._wanted[holder]:
                del self._wanted[holder], self._locks[holder]

"""One at a time per tenant (or whatever else), for rules that read, change and write back; or a few, where answers are large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager


class KeyedSemaphore:
    """A semaphore for each key, dropped when nobody uses it. places: of each key."""

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._locks: dict[Hashable, asyncio.Semaphore] = {}
        self._users: dict[Hashable, int] = {}

    async def acquire(self, holder: Hashable) -> Callable[[], None]:
        """Waits for a place; what it returns gives the place back."""
        lock = self._locks.setdefault(holder, asyncio.Semaphore(self._places))
        self._users[holder] = self._users.get(holder, 0) + 1
        try:
            await lock.acquire()
        except BaseException:
            self._forget(holder)
            raise

        def release() -> None:
            lock.release()
            self._forget(holder)

        return release

    @asynccontextmanager
    async def of(self, holder: Hashable) -> AsyncIterator[None]:
        """Holds a place of this key; waits for one without a limit."""
        release = await self.acquire(holder)
        try:
            yield
        finally:
            release()

    def _forget(self, holder: Hashable) -> None:
        self._users[holder] -= 1
        if not self._users[holder]:
            del self._users[holder], self._locks[holder]

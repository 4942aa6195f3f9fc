"""Who wants to know that another process has written to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.tasks import Tasks


class Changes:
    """watch: notices them for ever, and calls `tell`. It runs while the database is open and somebody wants to know."""

    def __init__(self, watch: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._watch = watch
        self._callbacks: list[Callable[[], None]] = []
        self._is_open = False
        self._tasks = Tasks()
        self._task: asyncio.Task[None] | None = None

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Returns what takes it away again."""
        self._callbacks.append(callback)
        self._watch_as_needed()

        def remove() -> None:
            self._callbacks.remove(callback)
            self._watch_as_needed()

        return remove

    def start(self) -> None:
        self._is_open = True
        self._watch_as_needed()

    async def stop(self) -> None:
        self._is_open, self._task = False, None
        await self._tasks.stop()

    def tell(self) -> None:
        for callback in list(self._callbacks):
            callback()

    def _watch_as_needed(self) -> None:
        is_needed = self._is_open and bool(self._callbacks)
        if is_needed and self._task is None:
            self._task = self._tasks.supervise(self._watch, "database changes")
        elif not is_needed and self._task is not None:
            self._task.cancel()
            self._task = None

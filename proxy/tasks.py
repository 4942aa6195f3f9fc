"""Background tasks that are never lost: each has a reference, a name, a log line when it fails, and an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("comfygate")


class Tasks:
    """The tasks of one owner. is_watched: somebody awaits each and hears of its failure, so it is not logged here."""

    def __init__(self, *, is_watched: bool = False) -> None:
        self._is_watched = is_watched
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancels what still runs and waits for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self) -> None:
        """Waits for what still runs, and for what that starts."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._is_watched:
            _log.error("background task %s failed", task.get_name(), exc_info=error)

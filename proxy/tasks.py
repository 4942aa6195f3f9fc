"""Background tasks that are never lost: each has a reference, a name, a log line when it fails, and an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

BACK_OFF_S: Final = (0.5, 1.0, 5.0, 30.0)
"""Before a loop that failed runs again; the last one for all further failures."""
_WELL_AFTER_S: Final = 300.0

_log = logging.getLogger("comfygate")

on_failure: Final[list[Callable[[str], None]]] = []
"""Who is told the name of a loop that failed, in this process."""


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

    def supervise(self, loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """A loop that shall run as long as its owner: a bug in it is logged, counted, and it runs again after a while."""
        return self.start(_supervised(loop, name), name)

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


async def _supervised(loop: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    clock, failures = asyncio.get_running_loop().time, 0
    while True:
        began_s = clock()
        try:
            return await loop()
        except Exception:
            _log.exception("background task %s failed; it is started again", name)
            for tell in on_failure:
                tell(name)
        failures = 1 if clock() - began_s > _WELL_AFTER_S else failures + 1
        await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1])

"""Background tasks that are never lost: each has a reference, a name, a log line when it fails, and an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

BACK_OFF_S: Final = (0.5, 1.0, 5.0, 30.0)
"""Before a loop that failed runs again; the last one for all further failures."""
_WELL_AFTER_S: Final = 300.0
WORD_EACH_S: Final = 5.0
"""What stops says so often what it still waits for."""
STOP_LIMIT_S: Final = 60.0
"""Nothing is waited for longer than that: whoever stops the process would have ended it by then."""
_WORDS: Final = round(STOP_LIMIT_S / WORD_EACH_S)

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
        """Cancels what still runs and waits for its end, for STOP_LIMIT_S at most."""
        left = set(self._tasks)
        for _ in range(_WORDS):
            for task in left:
                task.cancel()  # once more where it goes on: some libraries lose one that comes at the wrong moment
            if left:
                _, left = await asyncio.wait(left, timeout=WORD_EACH_S)
            if left:
                _log.warning("what was cancelled goes on: %s", ", ".join(sorted(map(_standing, left))))

    async def finish(self) -> None:
        """Waits for what still runs, and for what that starts."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._is_watched:
            _log.error("background task %s failed", task.get_name(), exc_info=error)


Stop = Callable[[], Coroutine[Any, Any, object]]


async def stop_in_turn(stops: Iterable[tuple[str, Stop]]) -> bool:
    """Stops one after the other, each for STOP_LIMIT_S at most, whatever became of those before. stops: with names, for the log, where it stands what
    is waited for, and what failed. Returns whether all have stopped.
    """
    loop, is_whole = asyncio.get_running_loop(), True
    for name, stop in stops:
        is_whole &= await _has_stopped(loop.create_task(stop(), name=f"the end of {name}"))
    return is_whole


async def _has_stopped(stopping: asyncio.Task[object]) -> bool:
    try:
        for _ in range(_WORDS):
            await asyncio.wait((stopping,), timeout=WORD_EACH_S)
            if stopping.done():
                break
            _log.warning("stopping waits for %s", _standing(stopping))
    finally:
        stopping.cancel()
    if not stopping.done():
        _log.error("stopping does not wait for %s any longer", stopping.get_name())
        return False
    # It may have waited for something that was cancelled.
    error = asyncio.CancelledError() if stopping.cancelled() else stopping.exception()
    if error is not None:
        _log.error("stopping: %s failed", stopping.get_name(), exc_info=error)
    return error is None


def _standing(task: asyncio.Task[Any]) -> str:
    """Its name, and where it waits."""
    place: Any = task.get_coro()
    while (inner := getattr(place, "cr_await", None)) is not None and hasattr(inner, "cr_frame"):
        place = inner
    frame = getattr(place, "cr_frame", None)
    return (
        task.get_name() if frame is None else f"{task.get_name()} (line {frame.f_lineno} of {frame.f_code.co_filename})"
    )


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

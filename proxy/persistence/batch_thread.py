"""A thread that does what waits for it in batches: one hop there and one back for all of a batch, however many they are.

What comes while a batch is worked at may join it, until its work is done: under load that is most of it, since who holds the interpreter asks meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeAlias

from proxy.persistence.waiting import Call, Failure, Waiting, answer

MAX_BATCH: Final = 256
"""Whoever is first in a batch waits for its last."""

Latecomers: TypeAlias = Callable[[], Sequence[Call]]
"""What came since, as far as the batch has room."""
Work: TypeAlias = Callable[[list[Call], Latecomers], list[Any]]
"""Called in the thread; gives a result or a Failure for each call, also of the latecomers that it put into its batch."""


class BatchThread:
    """Everything but `work` happens in the event loop that made it: what waits is taken by the thread while it is busy, else by the loop."""

    def __init__(self, name: str, work: Work) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._waiting = Waiting()
        self._batches: SimpleQueue[list[Call] | None] = SimpleQueue()
        self._is_busy = False
        self._is_stopping = False
        self._ended = self._loop.create_future()
        # It ends with the process: what a transaction has not committed is not there, which is what its caller was told.
        Thread(target=self._serve, name=name, daemon=True).start()

    def submit(
        self, operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if not self._is_busy:
            # In the next round of the loop, so that all who come in this one are in it.
            self._is_busy = True
            self._loop.call_soon(self._hand_over)
        return self._waiting.add(operation, args, kwargs)

    async def stop(self) -> None:
        """Ends the thread after all that was submitted."""
        self._is_stopping = True
        if not self._is_busy:
            self._batches.put(None)
        await self._ended

    def _hand_over(self) -> None:
        batch = self._waiting.take(MAX_BATCH)
        self._is_busy = bool(batch)
        if batch:
            self._batches.put(batch)
        elif self._is_stopping:
            self._batches.put(None)

    def _answer(self, batch: list[Call], outcomes: list[Any]) -> None:
        answer(batch, outcomes)
        self._hand_over()

    def _serve(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                outcomes = self._work(batch, partial(self._join, batch))
            except Exception as error:  # a bug, and nobody waits for ever because of it
                outcomes = [Failure(error) for _ in batch]
            if not self._tell(self._answer, batch, outcomes):
                return
        self._tell(self._ended.set_result, None)

    def _join(self, batch: list[Call]) -> list[Call]:
        return self._waiting.take(MAX_BATCH - len(batch))

    def _tell(self, callback: Callable[..., object], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return False
        return True

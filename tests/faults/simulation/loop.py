"""An event loop whose clock jumps: when nobody has anything to do it is the time of the next timer. Work for threads is done at once."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from unittest.mock import patch

_T = TypeVar("_T")
START_S = 1_000_000.0


class Deadlock(AssertionError):
    """Everybody waits for somebody."""


class _Selector(selectors.SelectSelector):
    """Waits for nothing, since nothing comes from outside."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self._advance(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now_s = START_S
        super().__init__(_Selector(self._advance))
        self._clock_resolution = 1e-9

    def _advance(self, seconds: float) -> None:
        self._now_s += max(0.0, seconds)

    def time(self) -> float:
        return self._now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def simulate(work: Callable[[], Coroutine[Any, Any, _T]], seed: int = 0) -> _T:
    """Runs to the end of `work`, on the loop's clock. seed: of what is random by the system. Raises what `work` raises, and Deadlock."""
    loop = SimulatedLoop()
    failures: list[Mapping[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        clocks = patch.multiple("time", time=loop.time, monotonic=loop.time)
        with clocks, patch("os.urandom", random.Random(seed).randbytes):
            result = loop.run_until_complete(work())
    finally:
        loop.run_until_complete(_end_all())
        loop.close()
    assert not failures, failures
    return result


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def now_s() -> float:
    return asyncio.get_running_loop().time()

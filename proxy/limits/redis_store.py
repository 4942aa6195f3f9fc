"""The connection to Redis: commands of one moment go in one round trip, and a circuit breaker keeps a sick Redis from holding up anybody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError

from proxy.limits.redis_scripts import Call
from proxy.limits.script_client import FAILURES, MAX_BATCH, ScriptClient
from proxy.limits.store_unavailable import StoreUnavailable
from proxy.tasks import Tasks

DEFAULT_TIMEOUT_S: Final = 0.25
FIRST_PROBE_S: Final = 0.25
MAX_PROBE_S: Final = 5.0

_log = logging.getLogger("comfygate.limits")

OnReturn = Callable[[], Iterable[Call]]


class _Waiting(NamedTuple):
    call: Call
    answer: asyncio.Future[Any]
    since_s: float


def _ignore(is_up: bool) -> None:
    pass


class SharedStore:
    """Redis, as several gates share it.

    A command waits `timeout_s` at most; one that fails makes all others fail at once until a probe succeeds. Before the gates rely on Redis again
    they tell it what they counted alone: also when it was started anew so quickly that nobody missed it, which shows in its forgotten scripts.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_change: Callable[[bool], None] = _ignore,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """url: as redis-py reads it. on_change: told whether Redis is relied on, for the metric. Raises ValueError for a bad URL."""
        self._client = ScriptClient(url, timeout_s)
        self.address = self._client.address
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._sleep = sleep
        self._on_return: list[OnReturn] = []
        self._is_up = False
        self._is_stopping = False
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._tasks = Tasks()

    @property
    def is_up(self) -> bool:
        return self._is_up

    def on_return(self, calls: OnReturn) -> None:
        """`calls` gives what this gate knows, each time before Redis is relied on."""
        self._on_return.append(calls)

    async def start(self) -> None:
        """Waits for Redis no longer than `timeout_s`; without it the gate starts on its own memory."""
        try:
            await self._restore()
        except FAILURES as error:
            self._report_gone(error)
        self._tasks.supervise(self._run_batches, "limits store")

    async def stop(self) -> None:
        # redis-py can lose a cancellation that comes while it looks for stale data: the flag ends what that would keep alive.
        self._is_stopping = True
        self._is_up = False
        await self._tasks.stop()
        self._fail_waiting()
        await self._client.close()

    def send(self, call: Call) -> asyncio.Future[Any]:
        """Puts a call into the next round trip, behind those sent before. Raises StoreUnavailable while Redis is known to be gone."""
        if not self._is_up:
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._wake.set()
        return waiting.answer

    async def run(self, call: Call) -> Any:
        """Redis's answer. Raises StoreUnavailable: at once while Redis is known to be gone, else within `timeout_s`."""
        return await self.send(call)

    async def run_all(self, calls: Iterable[Call]) -> None:
        """Many calls whose answers nobody needs. Raises StoreUnavailable."""
        await asyncio.gather(*[self.send(call) for call in calls])

    async def _run_batches(self) -> None:
        while not self._is_stopping:
            if not self._is_up:
                await self._probe()
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._serve(batch)

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        try:
            async with asyncio.timeout_at(batch[0].since_s + self._timeout_s):
                answers = await self._send([waiting.call for waiting in batch])
        except FAILURES as error:
            await self._mark_down(error, batch)
            return
        except BaseException:
            _fail(batch)
            raise
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        answers = await self._client.run(calls)
        lost = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if lost:
            # Redis was started anew: what it counted may be gone too.
            await self._restore()
            for index, answer in zip(lost, await self._client.run([calls[index] for index in lost]), strict=True):
                answers[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _restore(self) -> None:
        """Loads the scripts and lifts Redis to what this gate knows."""
        await self._client.load()
        for source in self._on_return:
            await self._client.run_all(source())
        if not self._is_up:
            self._is_up = True
            self._on_change(True)

    async def _mark_down(self, error: Exception, batch: Sequence[_Waiting]) -> None:
        self._is_up = False
        _fail(batch)
        self._fail_waiting()
        self._report_gone(error)
        await self._client.drop_connections()

    async def _probe(self) -> None:
        gone_at_s = time.monotonic()
        pause_s = FIRST_PROBE_S
        while not self._is_stopping:
            await self._sleep(pause_s)
            try:
                await self._restore()
            except FAILURES:
                pause_s = min(MAX_PROBE_S, 2 * pause_s)
                continue
            _log.warning(
                "Redis at %s is back after %.1f s: limits are shared again", self.address, time.monotonic() - gone_at_s
            )
            return

    def _report_gone(self, error: Exception) -> None:
        _log.warning(
            "Redis at %s does not answer (%s: %s): this gate limits by its own memory until it does",
            self.address,
            type(error).__name__,
            error,
        )
        self._on_change(False)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        _fail(waiting)


def _fail(batch: Iterable[_Waiting]) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(StoreUnavailable())

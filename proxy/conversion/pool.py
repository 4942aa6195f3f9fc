"""Processes that convert pictures: started when there is work, ended when there is none, killed when one takes too long."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from proxy.conversion.order import MAX_LINE_BYTES, Answer, Order, read_answer
from proxy.processes import kill, wait_for_end
from proxy.tasks import Tasks

# -P: nothing is taken out of the folder in which the gate was started.
COMMAND: Final = (sys.executable, "-P", "-m", "proxy.conversion.worker")
PROCESSES: Final = 2
TIME_LIMIT_S: Final = 60.0
"""Of one picture, on a machine that has other things to do."""
IDLE_S: Final = 30.0
_TRIES: Final = 2
"""One that has ended in the midst of its work, as of a system that was short of memory."""
# SECURITY: nothing else of the gate's environment, which may hold the password of a store (test_pool.py).
_PASSED: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
_SPARING: Final = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}

_log = logging.getLogger("comfygate")


def can_convert() -> bool:
    """Whether Pillow is there. It is not loaded: that is for the processes that convert."""
    return find_spec("PIL") is not None


class ConverterPool:
    """Each process converts one picture at a time; who comes first is first. command: what they run. processes: how many at most.

    busy: how many convert just now. on_converted: told of each conversion, with its seconds without the wait.
    """

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        processes: int = PROCESSES,
        idle_s: float = IDLE_S,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._command = command
        self._idle_s = idle_s
        self._time_limit_s = time_limit_s
        self._places = asyncio.Semaphore(processes)
        self._idle: list[Process] = []
        self._end_of_idle: asyncio.TimerHandle | None = None
        self._ending = Tasks()
        self.busy = 0
        self.on_converted: Callable[[Order, Answer, float], None] = lambda order, answer, seconds: None

    async def convert(self, order: Order) -> Answer:
        """In its turn. Never raises: what a process broke at is refused."""
        async with self._places:
            self.busy += 1
            began_s = time.monotonic()
            try:
                answer = await self._converted(order)
            finally:
                self.busy -= 1
            self.on_converted(order, answer, time.monotonic() - began_s)
            return answer

    async def _converted(self, order: Order) -> Answer:
        for _ in range(_TRIES):
            process = self._take()
            try:
                process = process or await self._start()
                async with asyncio.timeout(self._time_limit_s):
                    answer = await _ask(process, order)
            except TimeoutError:
                self._kill(process)
                _log.warning("converting %s took longer than %.0f s, and was stopped", order.source, self._time_limit_s)
                return Answer(refused="To convert it takes too long.")
            except (OSError, EOFError, ValueError, TypeError) as error:
                self._kill(process)
                await asyncio.to_thread(_take_away, Path(order.target))
                _log.warning(
                    "the process that converted %s has ended: %s", order.source, str(error) or type(error).__name__
                )
            except BaseException:
                self._kill(process)  # else its answer would be taken for the next one's
                raise
            else:
                self._give_back(process)
                return answer
        return Answer(refused="It breaks the program that converts it.")

    async def stop(self) -> None:
        """Nobody asks for anything any more: who still waits for an answer was cancelled before."""
        self._end()
        await self._ending.finish()

    def _take(self) -> Process | None:
        if self._end_of_idle is not None:
            self._end_of_idle.cancel()
            self._end_of_idle = None
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return None

    def _give_back(self, process: Process) -> None:
        self._idle.append(process)
        if self._end_of_idle is None:
            self._end_of_idle = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    async def _start(self) -> Process:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        # In a session of its own: Ctrl+C ends the gate, and the gate ends the process.
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=MAX_LINE_BYTES,
            env=passed | _SPARING,
            start_new_session=True,
        )

    def _end(self) -> None:
        """Those that have nothing to do end by themselves when there is nothing more to read. Those of a gate that was killed end the same way."""
        self._end_of_idle = None
        idle, self._idle = self._idle, []
        for process in idle:
            assert process.stdin is not None, "a pipe"
            process.stdin.close()
            self._ending.start(wait_for_end(process), "end of converting")

    def _kill(self, process: Process | None) -> None:
        if process is not None:
            kill(process)
            self._ending.start(wait_for_end(process), "end of converting")


def _take_away(half: Path) -> None:
    with suppress(OSError):  # it was not begun; or what comes next says why it cannot be written
        half.unlink()


async def _ask(process: Process, order: Order) -> Answer:
    """Raises OSError, EOFError, ValueError, TypeError when it does not answer as it should."""
    assert process.stdin is not None, "a pipe"
    assert process.stdout is not None, "a pipe"
    process.stdin.write(order.line())
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        raise EOFError("it said nothing more")
    return read_answer(line)

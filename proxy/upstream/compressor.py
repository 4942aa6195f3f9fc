"""Compresses at leisure, in a process beside the gate: no request waits for it, and the tens of megabytes that it takes go with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import Final

from proxy.http.codecs import CODINGS
from proxy.processes import kill, wait_for_end
from proxy.tasks import Tasks
from proxy.upstream.compressor_process import ANSWER, QUESTION

# -P: nothing is taken out of the folder in which the gate was started.
COMMAND: Final = (sys.executable, "-P", "-m", "proxy.upstream.compressor_process")
IDLE_S: Final = 1.0
"""How long the process waits for more to do."""
TIME_LIMIT_S: Final = 300.0
"""Of one piece of work, on a machine that has other things to do."""
REST_S: Final = 60.0
"""After a failure: what comes meanwhile is not compressed."""
# SECURITY: nothing else of the gate's environment, which may hold the password of a store (test_compressor.py).
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")

_log = logging.getLogger("comfygate")


class CompressionFailed(Exception):
    """It stays as it is. Why stands in the log."""


class Compressor:
    """One process at most, started when there is work and ended when there is none. command: what it runs."""

    def __init__(
        self, command: Sequence[str] = COMMAND, *, idle_s: float = IDLE_S, time_limit_s: float = TIME_LIMIT_S
    ) -> None:
        self._command = command
        self._idle_s = idle_s
        self._time_limit_s = time_limit_s
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending = Tasks()
        self._rests_until_s = float("-inf")

    async def best(self, coding: str, data: bytes) -> bytes:
        """The smallest form, when its turn has come. Raises CompressionFailed."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            if loop.time() < self._rests_until_s:
                raise CompressionFailed
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(self._time_limit_s):
                    packed = await self._ask(coding, data)
            except BaseException as error:
                self._kill()  # else its answer would be taken for the next one's
                if not isinstance(error, OSError | EOFError):  # TimeoutError is an OSError
                    raise
                self._rests_until_s = loop.time() + REST_S
                _log.warning("compressing failed, files are sent as they are: %s", _words(error))
                raise CompressionFailed from None
            self._idle = loop.call_later(self._idle_s, self._end)
        if not packed:
            _log.warning("%d bytes could not be compressed (%s), they are sent as they are", len(data), coding)
            raise CompressionFailed
        return packed

    async def stop(self) -> None:
        """Nobody asks for anything any more: who still waits for an answer was cancelled before."""
        self._kill()
        await self._ending.finish()

    async def _ask(self, coding: str, data: bytes) -> bytes:
        if self._process is None:
            self._process = await self._start()
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None, "a pipe"
        assert answers is not None, "a pipe"
        questions.write(QUESTION.pack(CODINGS.index(coding), len(data)))
        questions.write(data)
        await questions.drain()
        (size,) = ANSWER.unpack(await answers.readexactly(ANSWER.size))
        return await answers.readexactly(size)

    async def _start(self) -> Process:
        # In a session of its own: Ctrl+C ends the gate, and the gate ends the process.
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )

    def _end(self) -> None:
        """It ends by itself when there is nothing more to read. That of a gate that was killed ends the same way."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.stdin is not None:
            process.stdin.close()
        self._ending.start(wait_for_end(process), "end of compressing")

    def _kill(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._process is not None:
            kill(self._process)
        self._end()


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

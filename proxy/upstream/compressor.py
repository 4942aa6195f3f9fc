"""Compresses at leisure: one thread beside everything else, so that neither a request nor the event loop waits for it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from proxy.http.content_coding import compress

_NICE: Final = 19
_MUCH_BYTES: Final = 1024**2
"""Compressing that much takes tens of megabytes for a moment, which the C library would keep."""
Job = tuple[Callable[[], bytes], "asyncio.Future[bytes]", asyncio.AbstractEventLoop]


class Compressor:
    """The thread is started by the first piece of work, and is no reason for the process to stay."""

    def __init__(self, compress_one: Callable[..., bytes] = compress) -> None:
        self._compress = compress_one
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def best(self, coding: str, data: bytes) -> bytes:
        """The smallest form, when its turn has come."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="compressor", daemon=True)
            self._thread.start()
        self._jobs.put((lambda: self._best(coding, data), done, loop))
        return await done

    def _best(self, coding: str, data: bytes) -> bytes:
        packed = self._compress(coding, data, is_best=True)
        if len(data) >= _MUCH_BYTES:
            give_back_memory()
        return packed

    def _work(self) -> None:
        if sys.platform == "linux":  # a thread has a niceness of its own there
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            make, done, loop = self._jobs.get()
            if done.cancelled():
                continue
            try:
                result: bytes | Exception = make()
            except Exception as error:
                result = error
            with suppress(RuntimeError):  # the loop is closed: the gate has stopped
                loop.call_soon_threadsafe(_tell, done, result)


def give_back_memory() -> None:
    """To the system, where the C library is glibc: malloc_trim(3)."""
    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        ctypes.CDLL(None).malloc_trim(0)


def _tell(done: asyncio.Future[bytes], result: bytes | Exception) -> None:
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)

"""Notices that the configuration file has changed, however it was changed, or that the operator asks for a reload by SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import signal
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from proxy.config.functions import FOLDER

POLL_S: Final = 0.3
"""Between two looks at the content. Not every file system tells of changes (network shares, mounts of containers), and none tells through every link."""
_SETTLE_S: Final = 0.1
_SETTLE_ROUNDS: Final = 5
_MISSING: Final = b""
_log = logging.getLogger("comfygate")


def fingerprint(file: Path) -> bytes:
    """The SHA-256 of the content: by it a change is told from a touch. Empty when the file cannot be read.

    Functions, which lie beside it and may be large, are told by their times and sizes.
    """
    try:
        digest = hashlib.sha256(file.read_bytes())
    except OSError:
        return _MISSING
    for beside in sorted((file.parent / FOLDER).glob("*")):
        with contextlib.suppress(OSError):  # it has just gone, and is missing at the next look
            found = beside.stat()
            digest.update(f"{beside.name}\0{found.st_mtime_ns}\0{found.st_size}\0".encode("utf-8", "surrogateescape"))
    return digest.digest()


async def watch(file: Path, on_change: Callable[[], Awaitable[None]], *, seen: bytes | None = None) -> None:
    """Calls on_change, one call at a time, within a second of a change of the file's content, and on SIGHUP; runs until cancelled.

    seen: the fingerprint of what has been read already, so that a change since then is not missed; by default what stands there now. What on_change raises is
    logged, and the watch goes on.
    """
    watching = _Watch(file, on_change, await asyncio.to_thread(fingerprint, file) if seen is None else seen)
    async with asyncio.TaskGroup() as group:
        group.create_task(watching.follow_signal(), name="follow SIGHUP")
        group.create_task(watching.follow_file(), name=f"follow {file.name}")


class _Watch:
    def __init__(self, file: Path, on_change: Callable[[], Awaitable[None]], seen: bytes) -> None:
        self._file = file
        self._on_change = on_change
        self._seen = seen
        self._calling = asyncio.Lock()

    async def follow_file(self) -> None:
        """A thread of its own compares: almost always it finds what was there before, and wakes nobody."""
        differs, stopped = asyncio.Event(), threading.Event()
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, differs.set)
        threading.Thread(target=self._compare, args=(tell, stopped), name="config look", daemon=True).start()
        try:
            while await differs.wait():
                differs.clear()
                await self.look()
        finally:
            stopped.set()

    def _compare(self, tell: Callable[[], object], stopped: threading.Event) -> None:
        """Until `stopped`. What cannot be compared differs: who looks then hears why."""
        while True:
            try:
                is_same = fingerprint(self._file) == self._seen
            except Exception:
                is_same = False
            if not is_same:
                with contextlib.suppress(RuntimeError):  # the loop was closed: nobody looks any more
                    tell()
            if stopped.wait(POLL_S):
                return

    async def follow_signal(self) -> None:
        """SIGHUP reloads whatever the content is: files that the configuration names may have changed."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGHUP, asked.set)
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            return  # Windows has no SIGHUP, and only the main thread gets signals
        try:
            while await asked.wait():
                asked.clear()
                self._seen = await asyncio.to_thread(fingerprint, self._file)
                await self._call()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def look(self) -> None:
        """Acts on a change of the content, once it has stood still: a file that is just being written or replaced is half there, or not at all."""
        current = await asyncio.to_thread(fingerprint, self._file)
        for _ in range(_SETTLE_ROUNDS):
            if current == self._seen:
                return
            before = current
            await asyncio.sleep(_SETTLE_S)
            current = await asyncio.to_thread(fingerprint, self._file)
            if current == before:
                break
        if current != self._seen:
            self._seen = current
            await self._call()

    async def _call(self) -> None:
        async with self._calling:
            try:
                await self._on_change()
            except Exception:
                _log.exception("the reload of %s failed", self._file)

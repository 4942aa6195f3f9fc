"""Notices that the configuration file has changed, however it was changed, or that the operator asks for a reload by SIGHUP."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from watchfiles import awatch

POLL_S: Final = 0.5
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 50
_SETTLE_S: Final = 0.1
_SETTLE_ROUNDS: Final = 5
_MISSING: Final = b""
_log = logging.getLogger("comfygate")


def fingerprint(file: Path) -> bytes:
    """The SHA-256 of the content: by it a change is told from a touch. Empty when the file cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return _MISSING


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
        await self.look()
        async for _ in _wakings(self._file):
            await self.look()

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


async def _wakings(file: Path) -> AsyncIterator[None]:
    """Whenever something moved in the folders, and every POLL_S all the same: not every file system tells (network shares, some mounts)."""
    while True:
        folders = _folders(file)
        try:
            async with aclosing(_changes(folders)) as changes:
                async for _ in changes:
                    yield
                    if _folders(file) != folders:
                        break  # a link was turned, as a mounted ConfigMap does: follow it
        except (OSError, RuntimeError) as error:
            _log.debug("no notice of file changes (%s): looking every %s s", error, POLL_S)
            await asyncio.sleep(POLL_S)
            yield


def _changes(folders: tuple[Path, ...]) -> AsyncGenerator[object, None]:
    return awatch(
        *folders,
        watch_filter=None,
        recursive=False,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        rust_timeout=int(POLL_S * 1000),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )


def _folders(file: Path) -> tuple[Path, ...]:
    """The folder that holds the file or its link, and the one that holds the file itself: a folder, since editors replace files."""
    folders = {file.absolute().parent}
    try:
        folders.add(file.resolve().parent)
    except (OSError, RuntimeError) as error:
        _log.debug("%s cannot be resolved: %s", file, error)
    return tuple(sorted(folder for folder in folders if folder.is_dir()))

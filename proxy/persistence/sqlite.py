"""The gate's database as one SQLite file in `state_dir`. One thread writes, another reads; SQLite blocks, and the event loop does not.

It writes ahead: a gate that is killed loses no row that was answered for, and reading never waits for writing.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, cast

from proxy.persistence.batch_thread import BatchThread
from proxy.persistence.changes import Changes
from proxy.persistence.operations import DatabaseUnavailable, Operation, P, Statement, T
from proxy.persistence.outage import Outage
from proxy.persistence.sqlite_file import open_existing, open_file, open_reader
from proxy.persistence.sqlite_transactions import Transactions

POLL_S: Final = 0.25
PAST_S: Final = 2.0
"""Times of files are not finer than the clock's tick, and on some file systems a second or two."""


class SqliteDatabase:
    """A `Database` (operations.py). is_guest: of a command beside the gate, which finds the file as a gate left it or not at all."""

    def __init__(self, path: Path, *, is_guest: bool = False) -> None:
        self.path = path
        self._is_guest = is_guest
        self.set_aside: Path | None = None
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._threads: tuple[BatchThread, BatchThread] | None = None
        self._changes = Changes(self._watch)
        self._outage = Outage(self.place)

    @property
    def is_past_unknown(self) -> bool:
        return self.set_aside is not None

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def is_shared(self) -> bool:
        return False

    @property
    def is_open(self) -> bool:
        return self._threads is not None

    async def open(self) -> None:
        await asyncio.to_thread(self._open)
        writing, reading = (
            Transactions(connection, self.path.name, self._outage) for connection in (self._writer, self._reader)
        )
        self._threads = (BatchThread("state", writing.write), BatchThread("state reader", reading.read))
        self._changes.start()

    async def close(self) -> None:
        await self._changes.stop()
        threads, self._threads = self._threads, None
        if threads is None:
            return
        for thread in threads:
            await thread.stop()
        self._reader.close()
        # The last one that closes writes the log into the file, which takes a while.
        await asyncio.to_thread(self._writer.close)

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._threads is None:
            raise DatabaseUnavailable(f"{self.path.name}: it is not open")
        return cast(T, await self._threads[0].submit(operation, args, kwargs))

    async def read(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._threads is None:
            raise DatabaseUnavailable(f"{self.path.name}: it is not open")
        return cast(T, await self._threads[1].submit(operation, args, kwargs))

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._changes.add(callback)

    async def say(self, text: str) -> None:
        """There are no other gates."""

    def on_word(self, callback: Callable[[str], None]) -> None:
        """Nobody says anything."""

    async def _watch(self) -> None:
        """What is written is asked about at once, and again when the time of the file can tell it from what is written later."""
        seen: int | None = None
        asked: tuple[_Write, bool] | None = None
        while True:
            write = _last_write(self.path)
            now = None if write is None else (write, write.is_past)
            if now is None or now != asked:
                with suppress(DatabaseUnavailable):
                    found = await self.run(_data_version)
                    if seen is not None and found != seen:
                        self._changes.tell()
                    seen, asked = found, now
            await asyncio.sleep(POLL_S)

    def _open(self) -> None:
        writer, self.set_aside = (open_existing(self.path), None) if self._is_guest else open_file(self.path)
        try:
            self._reader = open_reader(self.path)
        except BaseException:
            writer.close()
            raise
        self._writer = writer


class _Write(NamedTuple):
    """The last one to the log that SQLite writes ahead, whoever wrote it: when, in nanoseconds, and how long the log was then."""

    at_ns: int
    size: int

    @property
    def is_past(self) -> bool:
        """Whether no other one can have the same time."""
        return time.time_ns() - self.at_ns > PAST_S * 1e9


def _last_write(path: Path) -> _Write | None:
    """None where the file does not tell: a gate that has nothing to do asks SQLite nothing, which would take two threads four times a second."""
    if sys.platform == "win32":  # it writes the time down when it likes
        return None
    try:
        found = os.stat(f"{path}-wal")
    except OSError:
        return None
    return _Write(found.st_mtime_ns, found.st_size)


def _data_version() -> Operation[int]:
    """Another number when another connection has written: asked through the one that writes, so its own do not count."""
    [(number,)] = yield Statement("PRAGMA data_version")
    return int(number)

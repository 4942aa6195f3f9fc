"""The gate's database as one SQLite file in `state_dir`. One thread writes, another reads; SQLite blocks, and the event loop does not.

It writes ahead: a gate that is killed loses no row that was answered for, and reading never waits for writing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from proxy.persistence.batch_thread import BatchThread
from proxy.persistence.changes import Changes
from proxy.persistence.operations import ConstraintViolated, DatabaseUnavailable, Operation, P, Statement, T
from proxy.persistence.outage import Outage
from proxy.persistence.sqlite_file import open_existing, open_file, open_reader
from proxy.persistence.waiting import Call, Failure, check_text

POLL_S: Final = 0.25


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
        self._threads = (BatchThread("state", self._write), BatchThread("state reader", self._read))
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

    async def _watch(self) -> None:
        seen: int | None = None
        while True:
            with suppress(DatabaseUnavailable):
                found = await self.run(_data_version)
                if seen is not None and found != seen:
                    self._changes.tell()
                seen = found
            await asyncio.sleep(POLL_S)

    def _open(self) -> None:
        writer, self.set_aside = (open_existing(self.path), None) if self._is_guest else open_file(self.path)
        try:
            self._reader = open_reader(self.path)
        except BaseException:
            writer.close()
            raise
        self._writer = writer

    def _write(self, batch: Sequence[Call]) -> list[Any]:
        """One transaction for all: who fails is rolled back alone, and a commit that fails is everybody's."""
        connection, outcomes = self._writer, list[Any]()
        try:
            connection.execute("BEGIN IMMEDIATE")
            is_alone = len(batch) == 1
            for call in batch:
                if not is_alone:
                    connection.execute("SAVEPOINT operation")
                outcome = self._outcome(connection, call)
                if type(outcome) is Failure:
                    if not connection.in_transaction and isinstance(outcome.error.__cause__, sqlite3.Error):
                        raise outcome.error.__cause__  # SQLite has rolled back all of it, as for a full disk
                    connection.execute("ROLLBACK" if is_alone else "ROLLBACK TO operation")
                if not is_alone:
                    connection.execute("RELEASE operation")
                outcomes.append(outcome)
            if not (is_alone and type(outcomes[0]) is Failure):
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            _end(connection)
            self._outage.begins(error)
            done = [outcome if type(outcome) is Failure else self._failed(error) for outcome in outcomes]
            return done + [self._failed(error) for _ in batch[len(done) :]]
        self._outage.is_over()
        return outcomes

    def _read(self, batch: Sequence[Call]) -> list[Any]:
        """All from one moment."""
        connection = self._reader
        try:
            connection.execute("BEGIN")
            return [self._outcome(connection, call) for call in batch]
        except sqlite3.Error as error:
            return [self._failed(error) for _ in batch]
        finally:
            _end(connection)

    def _outcome(self, connection: sqlite3.Connection, call: Call) -> Any:
        try:
            operation: Operation[Any] = call.operation(*call.args, **call.kwargs)
            try:
                sql, parameters = next(operation)
                while True:
                    check_text(parameters)
                    sql, parameters = operation.send(connection.execute(sql, parameters).fetchall())
            except StopIteration as end:
                return end.value
            finally:
                operation.close()
        except sqlite3.IntegrityError as error:
            return Failure(ConstraintViolated(str(error)))
        except sqlite3.Error as error:
            return self._failed(error)
        except Exception as error:
            return Failure(error)

    def _failed(self, error: sqlite3.Error) -> Failure:
        failure = DatabaseUnavailable(f"{self.path.name}: {error}")
        failure.__cause__ = error
        return Failure(failure)


def _data_version() -> Operation[int]:
    """Another number when another connection has written: asked through the one that writes, so its own do not count."""
    [(number,)] = yield Statement("PRAGMA data_version")
    return int(number)


def _end(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")

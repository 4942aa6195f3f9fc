"""The gate's own database, one SQLite file for all that outlives a restart. Only this module opens it, brings it up to date, or moves it.

SQLite blocks, so its work is done in one thread. It writes ahead: a gate that is killed loses no row that was written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from filelock import FileLock

from proxy.persistence.migrations import MIGRATIONS

STATE_FILE: Final = "state.sqlite3"
OLD_FILE: Final = "usage.sqlite3"
"""The name before the file held more than GPU seconds."""
DAMAGED: Final = ".damaged-"
BUSY_TIMEOUT_S: Final = 5.0
_LOCK_TIMEOUT_S: Final = 10.0
_MODE: Final = 0o600
_BESIDE: Final = ("", "-wal", "-shm", "-journal")
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_log = logging.getLogger("comfygate")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class StateError(Exception):
    """The database cannot be used. The text says why, and what to do."""


class _Damaged(sqlite3.DatabaseError):
    """SQLite's own check says so."""


class StateDatabase:
    """`set_aside`: where a file went that was damaged, None when there was none; what it held is then not known any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def open(self) -> None:
        """Checks the file and brings it up to date, or makes it. Raises StateError."""
        self._connection = await self._in_thread(self._open)

    async def close(self) -> None:
        """Ends it after what is under way; a second time does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._in_thread(connection.close)
        self._thread.shutdown(wait=False)

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """What `work` returns, done as one transaction; another caller's comes before or after it.

        Raises what `work` raises and sqlite3.Error, also when the database is not open; nothing of it is then kept.
        """
        connection = self._connection
        if connection is None:
            raise sqlite3.ProgrammingError(f"{self.path} is not open")
        return await self._in_thread(lambda: _transact(connection, lambda: work(connection, *args, **kwargs)))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                self._take_over_old_file()
                return self._open_checked()
        except OSError as error:  # filelock.Timeout is one
            raise StateError(f"{self.path.name}: {error.strerror or error}") from None
        except sqlite3.Error as error:
            raise StateError(f"{self.path.name}: {error}") from None

    def _open_checked(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
        # Never overwritten: what can be saved of it is for a person to save.
        self.set_aside = set_aside(self.path)
        return _connect(self.path)

    def _take_over_old_file(self) -> None:
        old = self.path.with_name(OLD_FILE)
        if self.path.exists() or not old.exists():
            return
        try:
            with closing(sqlite3.connect(old, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
                # What its write-ahead log still holds goes into the file. Fails while an older gate has it open.
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
        os.chmod(old, _MODE)
        os.replace(old, self.path)


def set_aside(file: Path) -> Path:
    """Moves a damaged database, with what SQLite keeps beside it, to a name that nobody has; says so in the log. Raises OSError."""
    stem = f"{file.name}{DAMAGED}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    target, number = file.with_name(stem), 1
    while target.exists():
        number += 1
        target = file.with_name(f"{stem}-{number}")
    for beside in _BESIDE:
        source = file.with_name(file.name + beside)
        if source.exists():
            source.rename(target.with_name(target.name + beside))
    _log.error(
        "%s is damaged and was moved to %s: GPU budgets count from zero, browser sessions of before have ended, and "
        "idempotency keys are forgotten. To go back to a backup of it, stop the gate and put the copy in its place",
        file,
        target,
    )
    return target


def _connect(path: Path) -> sqlite3.Connection:
    """An open, whole and current database. Raises sqlite3.Error, StateError, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _MODE))  # SQLite itself would take the umask's mode
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _Damaged(found)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StateError(
                f"{path.name} was written by a newer comfygate (schema {version}, this one knows {len(MIGRATIONS)}): "
                "install that one again, or put back the backup from before the upgrade."
            )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _transact(connection, lambda: _migrate(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def _transact(connection: sqlite3.Connection, work: Callable[[], _T]) -> _T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return isinstance(error, _Damaged) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE

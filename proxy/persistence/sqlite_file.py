"""The file of a SQLite database: found, checked, moved when it is damaged, brought up to date. Blocks: for a thread, or a command."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock

from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import StateError

STATE_FILE: Final = "state.sqlite3"
OLD_FILE: Final = "usage.sqlite3"
"""The name before the file held more than GPU seconds."""
DAMAGED: Final = ".damaged-"
BUSY_TIMEOUT_S: Final = 5.0
_LOCK_TIMEOUT_S: Final = 10.0
_CACHED_STATEMENTS: Final = 512
_MODE: Final = 0o600
_BESIDE: Final = ("", "-wal", "-shm", "-journal")
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_log = logging.getLogger("comfygate")

# Of every value that is no number and no text the driver asks first how it is to be adapted, and forms an error where nobody says so.
sqlite3.register_adapter(bytes, bytes.__bytes__)
sqlite3.register_adapter(type(None), lambda nothing: nothing)


class _Damaged(sqlite3.DatabaseError):
    """SQLite's own check says so."""


def open_file(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """An open, whole and current database, made where there is none; and where a damaged one was moved to. Raises StateError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
            _take_over_old_file(path)
            return _open_checked(path)
    except OSError as error:  # filelock.Timeout is one
        raise StateError(f"{path.name}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise StateError(f"{path.name}: {error}") from None


def look_at_file(path: Path) -> None:
    """Whether `open_file` would find what it needs, as far as can be told without a change. Raises StateError."""
    folder = path.parent
    is_effective = os.access in os.supports_effective_ids
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=is_effective):
        raise StateError(f"{path.name}: {folder} cannot be written")
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as file:
            _check_version(path, file)
    except sqlite3.Error as error:
        if not _is_damage(error):
            raise StateError(f"{path.name}: {error}") from None


def open_existing(path: Path) -> sqlite3.Connection:
    """A connection to a database that a gate made: nothing is made, moved or brought up to date. Raises StateError."""
    if not path.exists():
        raise StateError(f"{path} is not there: no gate has run with this configuration yet")
    try:
        connection = _connect(path)
        try:
            _check_version(path, connection)
            if connection.execute("PRAGMA user_version").fetchone()[0] < len(MIGRATIONS):
                raise StateError(
                    f"{path.name} was written by an older comfygate: start the gate, which brings it up to date"
                )
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StateError(f"{path.name}: {error}. Run this as the user that the gate runs as") from None
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A second connection to an open database, which cannot write. Raises StateError."""
    try:
        connection = _connect(path)
        connection.execute("PRAGMA query_only=1")
    except sqlite3.Error as error:
        raise StateError(f"{path.name}: {error}") from None
    return connection


def _open_checked(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    try:
        return _open_current(path), None
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
    # Never overwritten: what can be saved of it is for a person to save.
    moved = set_aside(path)
    return _open_current(path), moved


def _take_over_old_file(path: Path) -> None:
    old = path.with_name(OLD_FILE)
    if path.exists() or not old.exists():
        return
    try:
        with closing(sqlite3.connect(old, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            # What its write-ahead log still holds goes into the file. Fails while an older gate has it open.
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
    os.chmod(old, _MODE)
    os.replace(old, path)


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
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    # SECURITY: a job that waits may have a client's key of paid services. Some builds of SQLite leave what is deleted in the file, others do not
    # (tests/proxy/v2/test_jobs.py::test_a_key_of_paid_services_waits_with_its_job_and_goes_with_it).
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _open_current(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error, StateError, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, _MODE))  # SQLite itself would take the umask's mode
    connection = _connect(path)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _Damaged(found)
        _check_version(path, connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StateError(
            f"{path.name} was written by a newer comfygate (schema {version}, this one knows {len(MIGRATIONS)}): "
            "install that one again, or put back the backup from before the upgrade."
        )


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    return isinstance(error, _Damaged) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE

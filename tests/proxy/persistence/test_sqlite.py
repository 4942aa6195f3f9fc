"""A disk that is full, a file that is locked, a folder that may not be written: told while it lasts, and over when it is."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from proxy.persistence import sqlite as module
from proxy.persistence import sqlite_file
from proxy.persistence.operations import ConstraintViolated, DatabaseUnavailable, Operation, StateError, Statement
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.proxy.conftest import opened
from tests.proxy.upstreams import GUARD_S


def put(run_id: str, tenant: str = "alice") -> Operation[None]:
    yield Statement("INSERT INTO gpu_usage VALUES (?, ?, 100, 1)", (run_id, tenant))


def names() -> Operation[list[str]]:
    rows = yield Statement("SELECT run_id FROM gpu_usage ORDER BY run_id")
    return [name for (name,) in rows]


@dataclass
class Looks:
    """Counts how often a watch has looked at the file. When it looks again, what it asked the last time has been answered. write: what it sees, if anything
    else than there is.
    """

    count: int = 0
    write: module._Write | None = None

    async def more(self, count: int) -> None:
        end = self.count + count
        async with asyncio.timeout(GUARD_S):
            while self.count < end:
                await asyncio.sleep(0.01)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Of the one database that has somebody to tell."""
    looks, look = Looks(), module._last_write

    def counted(path: Path) -> module._Write | None:
        looks.count += 1
        return looks.write or look(path)

    monkeypatch.setattr(module, "_last_write", counted)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    return looks


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk: what would grow a file over it fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="times of files")
async def test_where_nobody_writes_nothing_is_asked(tmp_path: Path, looks: Looks) -> None:
    """And what is written then is told, however old the time of the write before."""
    file, told = tmp_path / STATE_FILE, asyncio.Event()
    async with opened(file) as state, opened(file) as other:
        await state.run(put, "before")
        state.on_change(told.set)
        an_hour_ago_s = time.time() - 3600
        os.utime(f"{file}-wal", (an_hour_ago_s, an_hour_ago_s))
        await looks.more(2)  # the first may have been under way
        with mock.patch.object(state, "run", wraps=state.run) as run:
            await looks.more(3)
            run.assert_not_called()
        await other.run(put, "foreign")
        async with asyncio.timeout(GUARD_S):
            await told.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="times of files")
async def test_what_is_written_within_one_tick_of_the_clock_is_told_when_the_tick_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: Looks
) -> None:
    """By its time and size the second write cannot be told from the first, which was asked about already."""
    looks.write = module._Write(time.time_ns(), 1)
    monkeypatch.setattr(module, "PAST_S", 3600.0)
    told = asyncio.Event()
    async with opened(tmp_path / STATE_FILE) as state, opened(tmp_path / STATE_FILE) as other:
        state.on_change(told.set)
        await looks.more(2)
        await other.run(put, "foreign")
        with mock.patch.object(state, "run", wraps=state.run) as run:
            await looks.more(3)
            run.assert_not_called()
        monkeypatch.setattr(module, "PAST_S", 0.0)
        async with asyncio.timeout(GUARD_S):
            await told.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files")
async def test_a_full_disk_is_told_and_over_when_there_is_room(tmp_path: Path) -> None:
    async with opened(tmp_path / STATE_FILE) as state:
        await state.run(put, "before")
        with files_of_at_most((tmp_path / f"{STATE_FILE}-wal").stat().st_size + 100):
            # All of a group fail: the one that is large, and those whose commit it was too.
            answers = await asyncio.gather(
                *(state.run(put, f"{number}", "a" * 10_000_000 * (number == 1)) for number in range(4)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 4
            assert len({str(answer) for answer in answers}) == 1
            assert str(answers[0]).endswith(("disk I/O error", "database or disk is full"))
            with pytest.raises(DatabaseUnavailable, match=r"state\.sqlite3: (disk I/O error|database or disk is full)"):
                await state.run(put, "small")
            assert await state.read(names) == ["before"]
        await state.run(put, "after")
        assert await state.read(names) == ["after", "before"]
    async with opened(tmp_path / STATE_FILE) as state:
        assert state.set_aside is None
        assert await state.read(names) == ["after", "before"]


async def test_a_locked_file_is_told_and_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.0)
    async with opened(tmp_path / STATE_FILE) as state:
        await state.run(put, "before")
        with closing(sqlite3.connect(state.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match=r"state\.sqlite3: database is locked"):
                await state.run(put, "meanwhile")
            assert await state.read(names) == ["before"]
            other.execute("ROLLBACK")
        await state.run(put, "after")
        assert await state.read(names) == ["after", "before"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that somebody without rights reaches."""
    folder = Path(tempfile.mkdtemp(prefix="comfygate-folder-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def without_rights(*files: Path) -> Iterator[None]:
    """Root may write everywhere: for a while it is nobody, who has these files."""
    if os.geteuid() != 0:
        yield
        return
    for file in files:
        os.chown(file, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
async def test_a_folder_that_may_not_be_written_stops_the_start_until_it_may(folder: Path) -> None:
    state_dir = folder / "state"
    state_dir.mkdir()
    state = SqliteDatabase(state_dir / STATE_FILE)
    with without_rights(state_dir):
        state_dir.chmod(0o500)
        with pytest.raises(StateError, match=r"state\.sqlite3: Permission denied"):
            await state.open()
        with pytest.raises(StateError, match=r"cannot be written"):
            sqlite_file.look_at_file(state.path)
        state_dir.chmod(0o700)
        await state.open()
        await state.run(put, "one")
        await state.close()
        state.path.chmod(0o400)
        with pytest.raises(StateError, match=r"state\.sqlite3: Permission denied"):
            await state.open()
        state.path.chmod(0o600)
        await state.open()
        assert await state.read(names) == ["one"]
        await state.close()


async def test_a_group_shares_one_commit(tmp_path: Path) -> None:
    """However many wait, another connection sees one change."""
    async with opened(tmp_path / STATE_FILE) as state:
        await state.run(put, "first")
        with closing(sqlite3.connect(state.path, isolation_level=None)) as other:
            seen = {other.execute("SELECT COUNT(*) FROM gpu_usage").fetchone()[0]}
            watching = asyncio.ensure_future(asyncio.to_thread(_counts, state.path, 201))
            await asyncio.gather(*(state.run(put, f"{number}") for number in range(200)))
            seen |= await watching
        assert seen == {1, 201}


class Held:
    """An operation that ends when it is let go."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._may_end = threading.Event()

    def __call__(self, statement: Statement) -> Operation[None]:
        yield statement
        self._has_begun.set()
        self._may_end.wait()

    async def begun(self) -> None:
        await asyncio.to_thread(self._has_begun.wait)

    async def let_go(self) -> None:
        """After all that was asked before has been handed over."""
        await asyncio.sleep(0)
        self._may_end.set()


async def test_who_comes_before_a_commit_shares_it(tmp_path: Path) -> None:
    async with opened(tmp_path / STATE_FILE) as state:
        done: list[str] = []
        held = Held()
        state._writer.set_trace_callback(done.append)
        first = asyncio.ensure_future(state.run(held, next(put("first"))))
        await held.begun()
        late = [asyncio.ensure_future(state.run(put, f"{number}")) for number in range(3)]
        await held.let_go()
        await asyncio.gather(first, *late)
        state._writer.set_trace_callback(None)
        assert done.count("COMMIT") == 1
        assert await state.read(names) == ["0", "1", "2", "first"]


async def test_who_comes_late_and_fails_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / STATE_FILE) as state:
        held = Held()
        first = asyncio.ensure_future(state.run(held, next(put("first"))))
        await held.begun()
        late = [asyncio.ensure_future(state.run(put, name)) for name in ("first", "late")]
        await held.let_go()
        answers = await asyncio.gather(first, *late, return_exceptions=True)
        assert [type(answer) for answer in answers] == [type(None), ConstraintViolated, type(None)]
        assert await state.read(names) == ["first", "late"]


async def test_who_reads_late_is_shown_no_moment_of_before(tmp_path: Path) -> None:
    async with opened(tmp_path / STATE_FILE) as state:
        held = Held()
        first = asyncio.ensure_future(state.read(held, next(names())))
        await held.begun()
        await state.run(put, "new")
        late = asyncio.ensure_future(state.read(names))
        await held.let_go()
        await first
        assert await late == ["new"]


def _counts(path: Path, last: int) -> set[int]:
    seen = set[int]()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while last not in seen:
            seen.add(connection.execute("SELECT COUNT(*) FROM gpu_usage").fetchone()[0])
    return seen

"""The gate's database: made, checked, brought up to date; damaged files are moved, never written over."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from proxy.persistence import sqlite_file as module
from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import DatabaseUnavailable, Operation, Rows, StateError, Statement
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import DAMAGED, OLD_FILE, STATE_FILE
from tests.proxy.conftest import opened

OLD_SCHEMA = """
CREATE TABLE jobs (prompt_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, ended_at_s REAL NOT NULL, gpu_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX jobs_by_tenant ON jobs (tenant, ended_at_s, gpu_s);
INSERT INTO jobs VALUES ('a-run', 'alice', 100.0, 7.5);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / STATE_FILE


def put(run_id: str, gpu_s: float = 1.0) -> Operation[None]:
    yield Statement("INSERT INTO gpu_usage VALUES (?, 'alice', 100.0, ?)", (run_id, gpu_s))


def put_many(count: int) -> Operation[None]:
    for number in range(count):
        yield from put(f"run-{number}")


def rows() -> Operation[Rows]:
    return (yield Statement("SELECT run_id, gpu_s FROM gpu_usage ORDER BY run_id"))


def version() -> Operation[Rows]:
    return (yield Statement("PRAGMA user_version"))


async def test_it_is_made_whole_and_its_owners_alone(path: Path) -> None:
    async with opened(path) as state:
        assert state.set_aside is None
        assert await state.read(rows) == []
        assert await state.read(version) == [(len(MIGRATIONS),)]
        if sys.platform != "win32":
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(f"{STATE_FILE}*")}
            assert set(modes.values()) == {0o600}, modes
    await state.close()
    assert not state.is_open


async def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    async with opened(path) as state:
        await state.run(put, "one", gpu_s=2.0)
    async with opened(path) as state:
        assert await state.read(rows) == [("one", 2.0)]


async def test_what_fails_half_way_leaves_nothing(path: Path) -> None:
    def fail() -> Operation[None]:
        yield from put("one")
        raise ValueError("half way")

    async with opened(path) as state:
        with pytest.raises(ValueError, match="half way"):
            await state.run(fail)
        await state.run(put, "two")
        assert await state.read(rows) == [("two", 1.0)]


async def test_nothing_is_done_before_it_is_open_or_after_it_was_closed(path: Path) -> None:
    state = SqliteDatabase(path)
    with pytest.raises(DatabaseUnavailable, match="not open"):
        await state.read(rows)
    await state.open()
    await state.close()
    with pytest.raises(DatabaseUnavailable, match="not open"):
        await state.read(rows)


def old_file(path: Path) -> Path:
    old = path.with_name(OLD_FILE)
    old.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(OLD_SCHEMA)
    return old


async def test_the_file_of_before_is_taken_over_with_its_rows(path: Path) -> None:
    old = old_file(path)
    old.chmod(0o644)
    async with opened(path) as state:
        assert await state.read(rows) == [("a-run", 7.5)]
    assert not old.exists()
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_the_old_file_still_has_in_its_log_is_taken_over(path: Path) -> None:
    """A gate that was killed leaves rows in the write-ahead log beside the file."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA journal_mode=WAL')\n"
        "connection.execute('PRAGMA wal_autocheckpoint=0')\n"
        "connection.executescript(sys.argv[2])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    old = path.with_name(OLD_FILE)
    old.parent.mkdir()
    killed = subprocess.run([sys.executable, "-c", script, str(old), OLD_SCHEMA], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert old.with_name(f"{OLD_FILE}-wal").stat().st_size
    async with opened(path) as state:
        assert await state.read(rows) == [("a-run", 7.5)]
    assert [file.name for file in path.parent.glob("usage*")] == []


async def test_an_old_gate_that_still_runs_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.0)
    old = old_file(path)
    with closing(sqlite3.connect(old, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("SELECT * FROM jobs").fetchall()
        with pytest.raises(StateError, match=r"state\.sqlite3: database is locked"):
            await SqliteDatabase(path).open()
    assert old.exists()
    assert not path.exists()


@pytest.mark.parametrize("name", [STATE_FILE, OLD_FILE])
async def test_a_damaged_file_is_moved_and_said(path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.with_name(name).write_bytes(b"this is no database" * 1000)
    async with opened(path) as state:
        assert state.set_aside is not None
        assert state.set_aside.read_bytes() == b"this is no database" * 1000
        assert state.set_aside.name.startswith(f"{STATE_FILE}{DAMAGED}")
        assert await state.read(rows) == []
    assert f"is damaged and was moved to {state.set_aside}" in caplog.text


async def test_damage_inside_of_a_file_is_found(path: Path) -> None:
    async with opened(path) as state:
        await state.run(put_many, 2000)
    content = bytearray(path.read_bytes())
    assert len(content) > 5 * 4096
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    async with opened(path) as state:
        assert state.set_aside is not None
        assert state.set_aside.read_bytes() == content
        assert await state.read(rows) == []


async def test_no_damaged_file_is_written_over_by_the_next(path: Path) -> None:
    for number in range(3):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"no database, number {number}".encode() * 1000)
        async with opened(path):
            pass
    assert len(list(path.parent.glob(f"{STATE_FILE}{DAMAGED}*"))) == 3


async def test_a_file_of_a_newer_gate_is_left_alone(path: Path) -> None:
    async with opened(path) as state:
        await state.run(put, "one")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"written by a newer comfygate.*put back the backup"):
        await SqliteDatabase(path).open()
    assert path.read_bytes() == before


async def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_file(path)
    monkeypatch.setattr(module, "MIGRATIONS", (MIGRATIONS[0], ("CREATE TABLE more (x)", "no SQL")))
    with pytest.raises(StateError, match="syntax error"):
        await SqliteDatabase(path).open()
    monkeypatch.undo()
    async with opened(path) as state:
        assert await state.read(rows) == [("a-run", 7.5)]


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"state\.sqlite3: "):
        await SqliteDatabase(tmp_path / "file" / STATE_FILE).open()


async def test_two_gates_may_start_on_one_file(path: Path) -> None:
    async with opened(path) as one, opened(path) as two:
        await one.run(put, "one")
        await two.run(put, "two")
        assert await one.read(rows) == [("one", 1.0), ("two", 1.0)]


async def test_a_gate_that_is_killed_loses_nothing(path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from proxy.persistence.operations import Statement\n"
        "from proxy.persistence.sqlite import SqliteDatabase\n"
        "def put(index):\n"
        "    yield Statement('INSERT INTO gpu_usage VALUES (?, ?, 0, 1)', (index, 'alice'))\n"
        "async def write(state, writer):\n"
        "    for index in range(10**9):\n"
        "        await state.run(put, f'{writer}-{index}')\n"
        "        print(f'{writer}-{index}', flush=True)\n"
        "async def main():\n"
        "    state = SqliteDatabase(pathlib.Path(sys.argv[1]))\n"
        "    await state.open()\n"
        "    await asyncio.gather(*(write(state, writer) for writer in range(8)))\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd()) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(100)]
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.stdout.read().splitlines(keepends=True)
    answered = {line.decode().strip() for line in told if line.endswith(b"\n")}
    async with opened(path) as state:
        there = {run_id for run_id, _ in await state.read(rows)}
    assert answered <= there
    assert len(there) <= len(answered) + 8, "each of the eight writers waits for its answer before it goes on"

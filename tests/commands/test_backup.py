"""`comfygate backup`, and the way back: what SQLite still has in its write-ahead log is in the copy."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proxy.auth import key_file
from proxy.auth.session_secret import load_secret
from proxy.commands.command_line import app
from proxy.config import load_config
from proxy.limits.gpu_usage_db import GpuUsage
from proxy.persistence.postgres import PostgresDatabase
from proxy.persistence.sqlite_file import DAMAGED, STATE_FILE
from tests.postgres import PostgresServer
from tests.proxy.conftest import opened

CONFIG = """\
[tenants.alice]
[policies.default]
workflows = [{ file = "flows/portrait.json" }]
[sessions]
secret_file = "session.secret"
[limits]
storage_file = "REDIS"
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["backup", *map(str, words)])


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The folder of a gate, with files that its configuration names inside and outside of it."""
    house = tmp_path / "gate"
    (house / "flows").mkdir(parents=True)
    (house / "state" / "more").mkdir(parents=True)
    (tmp_path / "redis-url").write_text("redis://127.0.0.1:6379/0")
    (house / "config.toml").write_text(CONFIG.replace("REDIS", (tmp_path / "redis-url").as_posix()), encoding="utf-8")
    (house / "flows" / "portrait.json").write_text("{}")
    (house / "session.secret").write_text("s" * 64)
    (house / "notes.txt").write_text("not the gate's")
    key_file.create_key(house / "config.toml", tenant="alice")
    return house


async def test_a_running_gates_database_is_whole_in_the_copy(house: Path, tmp_path: Path) -> None:
    async with opened(house / "state" / STATE_FILE) as state:
        await GpuUsage(state).add("a-run", "alice", 100.0, 7.5)
        # A plain copy of the file lacks it: it is in the write-ahead log.
        shutil.copy(house / "state" / STATE_FILE, tmp_path / "plain.sqlite3")

        result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert result.exit_code == 0, result.output
    assert not list((tmp_path / "backup" / "state").glob("*-wal"))
    async with (
        opened(tmp_path / "backup" / "state" / STATE_FILE) as restored,
        opened(tmp_path / "plain.sqlite3") as plain,
    ):
        assert await GpuUsage(restored).totals_s([("alice", 0.0)]) == [7.5]
        assert await GpuUsage(plain).totals_s([("alice", 0.0)]) == [0.0]


def test_what_is_copied_back_is_the_same_gate(house: Path, tmp_path: Path) -> None:
    secret = load_secret(None, house / "state")
    (house / "state" / "more" / "ended.json").write_text("[]")
    before = load_config(house / "config.toml", {})

    assert run(tmp_path / "backup", "--config", house / "config.toml").exit_code == 0
    shutil.rmtree(house)
    shutil.copytree(tmp_path / "backup", house)

    after = load_config(house / "config.toml", {})
    assert after == before
    assert load_secret(None, house / "state") == secret
    assert (house / "flows" / "portrait.json").read_text() == "{}"
    assert (house / "session.secret").read_text() == "s" * 64
    assert (house / "state" / "more" / "ended.json").exists()


def test_says_what_it_leaves_and_takes_nothing_that_is_not_the_gates(house: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert f"Not in it, since it lies elsewhere: {tmp_path / 'redis-url'}" in result.stderr
    assert {file.name for file in (tmp_path / "backup").iterdir()} == {
        "config.toml",
        "flows",
        "session.secret",
        "state",
    }


def test_a_database_in_postgresql_is_named_with_the_tool_that_copies_it(house: Path, tmp_path: Path) -> None:
    (tmp_path / "postgres-url").write_text("postgresql://gate:hidden@db.example/jobs")
    with (house / "config.toml").open("a") as file:
        file.write(f'[jobs]\ndatabase_file = "{(tmp_path / "postgres-url").as_posix()}"\n')

    result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert result.exit_code == 0
    assert "Not in it: the database at postgresql://db.example:5432/jobs" in result.stderr
    assert "pg_dump --format=custom --schema=comfygate" in result.stderr
    assert "hidden" not in result.output


async def test_a_dump_of_postgresql_is_the_same_database(
    tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """By the commands of docs/operations.md, while the gate has it open, and into a database that has gone on since."""
    name, file = postgres_url.rpartition("/")[2], str(tmp_path / "comfygate.dump")
    database = PostgresDatabase(postgres_url)
    await database.open()
    await GpuUsage(database).add("a-run", "alice", 100.0, 7.5)
    postgres_server.tool("pg_dump", "--format=custom", "--schema=comfygate", f"--file={file}", name)
    await GpuUsage(database).add("later", "alice", 100.0, 1.0)
    await database.close()
    postgres_server.tool("pg_restore", "--clean", "--if-exists", f"--dbname={name}", file)
    await database.open()
    assert not database.is_past_unknown
    assert await GpuUsage(database).totals_s([("alice", 0.0)]) == [7.5]
    await database.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and links")
def test_is_its_owners_alone_and_follows_no_link(house: Path, tmp_path: Path) -> None:
    (house / "state" / "link").symlink_to(tmp_path / "redis-url")

    assert run(tmp_path / "backup", "--config", house / "config.toml").exit_code == 0

    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    assert not (tmp_path / "backup" / "state" / "link").exists()


def test_never_writes_into_what_is_there(house: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()

    result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert (result.exit_code, list((tmp_path / "backup").iterdir())) == (1, [])
    assert "is there already: name a new folder" in result.stderr


def test_without_a_configuration_nothing_is_made(tmp_path: Path) -> None:
    assert run(tmp_path / "backup", "--config", tmp_path / "none.toml").exit_code == 1
    assert not (tmp_path / "backup").exists()


def test_a_damaged_database_is_told(house: Path, tmp_path: Path) -> None:
    (house / "state" / STATE_FILE).write_bytes(b"SQLite format 3\0" + b"x" * 100)

    result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert (result.exit_code, "file is not a database" in result.stderr) == (1, True)


def test_a_damaged_database_that_was_moved_is_copied_as_it_is(house: Path, tmp_path: Path) -> None:
    moved = house / "state" / f"{STATE_FILE}{DAMAGED}20261128T120000Z"
    moved.write_bytes(b"SQLite format 3\0" + b"x" * 100)

    result = run(tmp_path / "backup", "--config", house / "config.toml")

    assert result.exit_code == 0, result.output
    assert (tmp_path / "backup" / "state" / moved.name).read_bytes() == moved.read_bytes()

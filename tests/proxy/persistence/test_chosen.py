"""Which database a configuration names, and what is said of one that cannot be used."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load_config
from proxy.persistence.chosen import chosen_database, place_of_postgres, try_database
from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.postgres import PostgresServer


def config(folder: Path, jobs: str = "") -> Config:
    file = folder / "config.toml"
    file.write_text(f"[tenants.alice]\n[jobs]\n{jobs}\n", encoding="utf-8")
    return load_config(file, {})


async def fault_of(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        await try_database(config)
    return str(caught.value)


async def test_without_an_address_it_is_the_file_in_state_dir(tmp_path: Path) -> None:
    chosen = config(tmp_path)
    assert chosen_database(chosen).place == str(tmp_path / "state" / STATE_FILE)
    assert place_of_postgres(chosen) is None
    assert await try_database(chosen) == []
    assert not (tmp_path / "state").exists()


def test_a_gate_with_a_file_loads_nothing_of_postgresql(tmp_path: Path) -> None:
    script = "import sys, proxy.app, proxy.commands.main; assert 'asyncpg' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


async def test_an_address_may_come_from_a_file_and_its_password_is_told_nowhere(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://gate:hidden@127.0.0.1:1/jobs\n", encoding="utf-8")
    chosen = config(tmp_path, 'database_file = "url"')
    assert chosen_database(chosen).place == place_of_postgres(chosen) == "postgresql://127.0.0.1:1/jobs"
    said = await fault_of(chosen)
    assert "jobs.database_file: cannot be used: postgresql://127.0.0.1:1/jobs: " in said
    assert "hidden" not in said


@pytest.mark.parametrize("text", [None, "postgresql://gate:hidden@word@host/jobs", "", "state.sqlite3"])
async def test_a_file_without_an_address_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "url").write_text(text, encoding="utf-8")
    chosen = config(tmp_path, 'database_file = "url"')
    with pytest.raises(ConfigError) as caught:
        chosen_database(chosen)
    for said in (await fault_of(chosen), str(caught.value)):
        assert "jobs.database_file: " in said
        assert ("No such file" if text is None else "write postgresql://") in said
        assert "hidden" not in said


async def test_a_database_is_tried_and_left_as_it_is(
    tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    chosen = config(tmp_path, f'database = "{postgres_url}"')
    assert await try_database(chosen) == []
    database = chosen_database(chosen)
    await database.open()
    await database.close()
    assert await try_database(chosen) == []
    name = postgres_url.rpartition("/")[2]
    await postgres_server.execute("UPDATE comfygate.schema_version SET version = 99", database=name)
    assert "jobs.database: cannot be used: postgresql://127.0.0.1" in await fault_of(chosen)
    assert "written by a newer comfygate (schema 99" in await fault_of(chosen)


async def test_a_password_that_is_wrong_is_said_without_it(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.url(user="locked").replace("locked", "locked:hidden")
    said = await fault_of(config(tmp_path, f'database = "{url}"'))
    assert "password authentication failed" in said
    assert "hidden" not in said


async def test_what_crosses_a_network_without_proof_is_warned_of(tmp_path: Path, postgres_url: str) -> None:
    named = postgres_url.replace("127.0.0.1", "127.1")  # a name, as far as can be seen, which is found on this machine
    [warning] = await try_database(config(tmp_path, f'database = "{named}"'))
    assert "crosses the network" in warning
    assert "sslmode=verify-full" in warning


async def test_a_file_that_cannot_be_used_is_said_before_the_start(tmp_path: Path) -> None:
    chosen = config(tmp_path)
    database = chosen_database(chosen)
    assert isinstance(database, SqliteDatabase)
    await database.open()
    await database.close()
    assert await try_database(chosen) == []
    with closing(sqlite3.connect(database.path, isolation_level=None)) as file:
        file.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    assert "server.state_dir: cannot be used: state.sqlite3 was written by a newer" in await fault_of(chosen)

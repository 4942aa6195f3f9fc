"""From every earlier version to the newest, with what was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.persistence import postgres_schema, sqlite_file
from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import Database, Operation, Rows, Statement
from proxy.persistence.postgres_sql import numbered, translated_schema
from tests.proxy.persistence.conftest import Make, opened

# A row of each table, by the version that made it.
ROWS: Final[dict[str, tuple[int, tuple[Any, ...]]]] = {
    "gpu_usage": (1, ("a-run", "alice", 100.0, 7.5)),
    "revoked_sessions": (2, ("7f3a9c21", "a" * 32, 0, 2**40)),
    "idempotent_submissions": (3, ("alice", b"k" * 32, b"f" * 32, "an-id", 1.5, 200, "application/json", b"{}", 258)),
    "store_state": (4, (2, 7, 1.5, 0)),
    "fair_tags": (4, ("alice", 2.5)),
    "jobs": (
        4,
        (
            "an-id",
            "alice",
            "7f3a9c21",
            "",
            "w",
            "waiting",
            1,
            *[0.5] * 5,
            None,
            None,
            0.0,
            *[""] * 4,
            0.0,
            "[]",
            None,
            "",
            2,
            1,
        ),
    ),
    "job_documents": (4, ("an-id", "prompt", b"{}")),
    "forgotten_jobs": (4, ("old-id", "alice", 3)),
    "job_labels": (5, ("an-id", "alice", "client", "acme")),
    "assets": (
        5,
        (
            "a",
            "alice",
            "an-id",
            "9",
            0,
            "image",
            "output",
            *["x.png"] * 2,
            "image/png",
            3,
            "",
            1.5,
            None,
            "[]",
            "",
            b"",
        ),
    ),
    "job_assets": (5, ("an-id", "a")),
    "webhook_endpoints": (5, ("shop", "alice", "job.failed", "an-address", 0.5, None)),
    "webhook_deliveries": (
        5,
        ("msg_1", "shop", "alice", "an-id", "failed", 0.5, None, 1.5, 2.5, "", 1, "", 1.5, "503"),
    ),
    "job_webhooks": (6, ("an-id", "alice", "https://hooks.example.com/")),
    "copies": (
        7,
        ("c", "alice", "an-id", "a", "waiting", *["x"] * 4, 3, *["x"] * 2, 0.5, None, 1.5, "", 1, None, "403"),
    ),
    "job_needs": (9, ("an-id", b"[]")),
    "comfyui_models": (9, ("gpu-1", "a.safetensors\nb.safetensors")),
    "drained_comfyuis": (11, ("gpu-1",)),
    "leaving_comfyuis": (12, ("gpu-2", "{}")),
}
# Columns that came later, with the version that made them.
ADDED: Final[dict[str, tuple[tuple[int, tuple[Any, ...]], ...]]] = {
    "webhook_deliveries": ((6, ("",)), (10, ("job.stored", 1.75))),
    "copies": ((8, ("", "", 0)),),
}


def put_all(version: int) -> Operation[None]:
    for table, (since, first) in ROWS.items():
        row = first
        for added_since, added in ADDED.get(table, ()):
            row += added if added_since <= version else ()
        if since <= version:
            yield Statement(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def get_all(tables: list[str]) -> Operation[dict[str, Rows]]:
    found = {}
    for table in tables:
        found[table] = yield Statement(f"SELECT * FROM {table}")
    return found


def tables_of(made: Database) -> Callable[[], Operation[set[str]]]:
    is_file = made.place.endswith("sqlite3")
    sql = (
        "SELECT name FROM sqlite_schema WHERE type = 'table'"
        if is_file
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'comfygate' AND tablename <> 'schema_version'"
    )

    def ask() -> Operation[set[str]]:
        rows = yield Statement(sql)
        return {name for (name,) in rows}

    return ask


async def test_every_table_has_a_row_here(make: Make) -> None:
    async with opened(make) as database:
        assert await database.read(tables_of(database)) == set(ROWS), "add a row of the new table to ROWS"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_what_an_earlier_version_kept_is_there(make: Make, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite_file, postgres_schema):
        monkeypatch.setattr(module, "MIGRATIONS", MIGRATIONS[:version])
    async with opened(make) as database:
        await database.run(put_all, version)
    monkeypatch.undo()
    for _ in range(2):
        async with opened(make) as database:
            found = await database.read(get_all, list(ROWS))
            # A step may put rows of its own into its tables, and columns behind those that there were.
            there = {table for table, (_, row) in ROWS.items() if any(each[: len(row)] == row for each in found[table])}
            assert there == {table for table, (since, _) in ROWS.items() if since <= version}


async def test_it_is_known_whether_a_database_is_new(make: Make, tmp_path: Path) -> None:
    """A file that was not there is that of a gate that was not there; tables in a server may be made for one that was."""
    async with opened(make) as database:
        assert database.is_past_unknown == (not database.place.endswith("sqlite3"))
    async with opened(make) as database:
        assert not database.is_past_unknown


@pytest.mark.parametrize(
    ("sql", "translated"),
    [
        ("CREATE TABLE a (b INTEGER NOT NULL, c REAL)", "CREATE TABLE a (b BIGINT NOT NULL, c DOUBLE PRECISION)"),
        ("CREATE TABLE a (b BLOB, c TEXT) WITHOUT ROWID", 'CREATE TABLE a (b BYTEA, c TEXT COLLATE "C")'),
        (
            "CREATE TABLE a (b INTEGER PRIMARY KEY)",
            "CREATE TABLE a (b BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY)",
        ),
        ("ALTER TABLE a ADD COLUMN text_of TEXT", 'ALTER TABLE a ADD COLUMN text_of TEXT COLLATE "C"'),
        ("CREATE INDEX a ON b (c) WHERE d = 'TEXT'", "CREATE INDEX a ON b (c) WHERE d = 'TEXT'"),
    ],
)
def test_a_schema_is_translated(sql: str, translated: str) -> None:
    assert translated_schema(sql) == translated


@pytest.mark.parametrize(
    ("sql", "translated"),
    [
        ("SELECT 1", "SELECT 1"),
        ("UPDATE a SET b = ? WHERE c = ?", "UPDATE a SET b = $1 WHERE c = $2"),
        ("SELECT '?', \"?\", ?", "SELECT '?', \"?\", $1"),
    ],
)
def test_parameters_are_numbered(sql: str, translated: str) -> None:
    assert numbered(sql) == translated

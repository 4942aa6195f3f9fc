"""The gate's database of jobs, as each of the two that it may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.persistence.operations import Database
from proxy.persistence.postgres import PostgresDatabase
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE


@pytest.fixture(params=["sqlite", "postgres"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Gives databases that are the same one, as several processes would have it."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / STATE_FILE)
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)


@pytest.fixture
async def database(make_database: Callable[[], Database]) -> AsyncIterator[Database]:
    made = make_database()
    await made.open()
    try:
        yield made
    finally:
        await made.close()

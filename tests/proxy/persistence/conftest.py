"""Every database of the gate: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from proxy.persistence.operations import Database
from proxy.persistence.postgres import PostgresDatabase
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE

Make: TypeAlias = Callable[[], Database]


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Gives databases that are the same one: as several processes would have it."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / STATE_FILE)
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresDatabase(url)


@asynccontextmanager
async def opened(make: Make) -> AsyncIterator[Database]:
    database = make()
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(make: Make) -> AsyncIterator[Database]:
    async with opened(make) as database:
        yield database

"""Empty databases of a PostgreSQL server, used again: to make one for each test took a fifth of the tests' time with PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from proxy.persistence.operations import SCHEMA
from tests.postgres import PostgresServer

MAX_USES: Final = 50
"""Nothing sweeps up what was dropped (autovacuum is off), and each look at the catalogue takes longer for it."""
_END_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
# Of what a new one has nothing: schemas, whatever stands in "public", settings.
_LEFT: Final = """
    SELECT nspname::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')
    UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class PostgresDatabases:
    """Those of one server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._idle: list[tuple[str, int]] = []
        """Empty ones, each with how often it was used."""

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """The address of one that nobody else has."""
        name, uses = self._idle.pop() if self._idle else (await self._made(), 0)
        try:
            yield self._server.url(name)
        finally:
            if uses + 1 < MAX_USES and await self._emptied(name):
                self._idle.append((name, uses + 1))
            else:
                await self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _made(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        await self._server.execute(f"CREATE DATABASE {name}")
        return name

    async def _emptied(self, name: str) -> bool:
        """Whether it is as a new one when what gates leave is gone."""
        connection = await asyncpg.connect(self._server.url(name))
        try:
            await connection.execute(_END_SESSIONS)
            await connection.execute(f"SET client_min_messages = warning; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            return not await connection.fetch(_LEFT)
        finally:
            await connection.close()

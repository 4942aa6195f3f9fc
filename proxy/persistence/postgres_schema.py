"""The gate's tables in PostgreSQL: in a schema of their own, made and brought up to date by whichever gate comes first."""

from __future__ import annotations

from typing import Final

import asyncpg

from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import SCHEMA, StateError
from proxy.persistence.postgres_sql import translated_schema

LOCK: Final = 0x636F6D66
"""The first number of our advisory locks, of which the second says what for."""
_MIGRATING: Final = 1


async def bring_up_to_date(connection: asyncpg.Connection) -> bool:
    """Whether the tables were made just now. Raises StateError, asyncpg.PostgresError."""
    await _check_server(connection)
    async with connection.transaction():
        # Other gates that start at the same time wait here.
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK}, {_MIGRATING})")
        version = await _version(connection)
        if version is None:
            await _make_schema(connection)
        for statements in MIGRATIONS[version or 0 :]:
            for statement in statements:
                await connection.execute(translated_schema(statement))
        if version != len(MIGRATIONS):
            await connection.execute("UPDATE schema_version SET version = $1", len(MIGRATIONS))
    return version is None


async def look(connection: asyncpg.Connection) -> None:
    """Whether `bring_up_to_date` would find what it needs, as far as can be told without a change. Raises as that does."""
    await _check_server(connection)
    await _version(connection)


async def check_current(connection: asyncpg.Connection) -> None:
    """Whether the tables are as a gate of this version leaves them. Raises StateError, asyncpg.PostgresError."""
    await _check_server(connection)
    version = await _version(connection)
    if version is None:
        raise StateError("it has no tables of a gate: no gate has run with this configuration yet")
    if version < len(MIGRATIONS):
        raise StateError("it was written by an older comfygate: start the gate, which brings it up to date")


async def _check_server(connection: asyncpg.Connection) -> None:
    encoding, is_standby = await connection.fetchrow("SELECT current_setting('server_encoding'), pg_is_in_recovery()")
    if encoding != "UTF8":
        raise StateError(f"the database's encoding is {encoding}: make one with ENCODING 'UTF8'")
    if is_standby:
        raise StateError("the server is a standby, which cannot be written: name the primary")


async def _version(connection: asyncpg.Connection) -> int | None:
    """None where there is nothing yet."""
    found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
    tables = {row["tablename"] for row in found}
    if not tables:
        return None
    rows = await connection.fetch("SELECT version FROM schema_version") if "schema_version" in tables else []
    if len(rows) != 1 or not isinstance(rows[0][0], int):
        raise StateError(
            f"the schema {SCHEMA!r} has tables ({', '.join(sorted(tables)[:3])}) that are not comfygate's: "
            "give the gate a database of its own"
        )
    version = int(rows[0][0])
    if version > len(MIGRATIONS):
        raise StateError(
            f"it was written by a newer comfygate (schema {version}, this one knows {len(MIGRATIONS)}): "
            "install that one again, or put back the backup from before the upgrade"
        )
    return version


async def _make_schema(connection: asyncpg.Connection) -> None:
    user = await connection.fetchval("SELECT quote_ident(current_user)")
    try:
        # Looked for before: IF NOT EXISTS asks for the right to make one also where it is there.
        if not await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", SCHEMA):
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        await connection.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
    except asyncpg.InsufficientPrivilegeError as error:
        raise StateError(f"{error}: as the database's owner, run CREATE SCHEMA {SCHEMA} AUTHORIZATION {user}") from None
    await connection.execute("INSERT INTO schema_version VALUES (0)")

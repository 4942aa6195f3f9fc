"""One connection to PostgreSQL that comes back by itself: a lost one is made anew at the next use, a failed attempt is not repeated for a while."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg

from proxy.config.postgres_url import read_postgres_url
from proxy.persistence.operations import SCHEMA, ConstraintViolated, DatabaseUnavailable, Rows, StateError
from proxy.persistence.postgres_sql import numbered

OLDEST_SERVER: Final = 15
CONNECT_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 15.0
"""Longer than the server's own, so that its words are told where it still has some."""
_SESSION: Final = {
    "application_name": "comfygate",
    "search_path": SCHEMA,
    "synchronous_commit": "on",
    "statement_timeout": "10s",
    "lock_timeout": "8s",
    # A gate that is frozen in the middle of a transaction must not keep the others from writing.
    "idle_in_transaction_session_timeout": "5s",
}
_READER: Final = {
    "default_transaction_isolation": "repeatable read",
    "default_transaction_read_only": "on",
}
_FIRST_BACK_OFF_S: Final = 0.1
_MAX_BACK_OFF_S: Final = 5.0
_CACHED_STATEMENTS: Final = 512
_ARGUMENT: Final = re.compile(r"query argument \$(\d+)")


async def connect(url: str, *, is_reader: bool = False) -> asyncpg.Connection:
    """Raises what asyncpg raises, and StateError for a server that is too old and for a file of the address that is not there."""
    _check_files(url)
    connection = await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        statement_cache_size=_CACHED_STATEMENTS,
        server_settings=_SESSION | _READER if is_reader else _SESSION,
    )
    try:
        version = connection.get_server_version()
        if version.major < OLDEST_SERVER:
            raise StateError(f"the server is PostgreSQL {version.major}; {OLDEST_SERVER} or newer is needed")
        # A sum of whole numbers is `numeric`: an int like all others here.
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")
    except BaseException:
        connection.terminate()
        raise
    return connection


def _check_files(url: str) -> None:
    """asyncpg would say that there is no such file, and not which."""
    for name in ("sslrootcert", "sslcert", "sslkey"):
        file = read_postgres_url(url).fields.get(name)
        if file is not None and not Path(file).is_file():
            raise StateError(f"{name}: there is no file {file}")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def words_of(error: BaseException) -> str:
    """What went wrong, in the server's words or the system's; never the address, which may hold a password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error).partition("\n")[0] or type(error).__name__


class Link:
    """For one task at a time. What asyncpg raises becomes DatabaseUnavailable, whatever it is: a lost connection has many faces."""

    def __init__(self, url: str, place: str, *, is_reader: bool = False) -> None:
        self._url = url
        self._place = place
        self._is_reader = is_reader
        self._connection: asyncpg.Connection | None = None
        self._back_off_s = 0.0
        self._not_before_s = 0.0
        self._fault = ""

    @property
    def pid(self) -> int | None:
        """The server's process of this connection."""
        return None if self._connection is None else self._connection.get_server_pid()

    def take(self, connection: asyncpg.Connection) -> None:
        """One that is there already."""
        self._connection = connection

    async def get(self) -> asyncpg.Connection:
        """Open, as far as is known. Raises DatabaseUnavailable."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        clock = asyncio.get_running_loop().time
        if clock() < self._not_before_s:
            raise DatabaseUnavailable(f"{self._place}: {self._fault}")
        try:
            self._connection = await connect(self._url, is_reader=self._is_reader)
        except Exception as error:
            self._back_off_s = min(max(2 * self._back_off_s, _FIRST_BACK_OFF_S), _MAX_BACK_OFF_S)
            self._not_before_s, self._fault = clock() + self._back_off_s, words_of(error)
            raise self._unavailable(error) from error
        self._back_off_s = 0.0
        return self._connection

    async def begin(self, sql: str) -> None:
        """As `execute`, on a new connection where the last one was lost. Raises DatabaseUnavailable."""
        await self.get()
        await self.execute(sql)

    async def execute(self, sql: str) -> str:
        """One statement or several, without parameters. Returns the last one's tag, as `COMMIT`. Raises DatabaseUnavailable."""
        try:
            return str(await self._there().execute(sql))
        except Exception as error:
            raise self._unavailable(error) from error

    async def fetch(self, sql: str, parameters: tuple[Any, ...]) -> Rows:
        """Raises ConstraintViolated, ValueError for a parameter that its column cannot hold, DatabaseUnavailable."""
        try:
            return [tuple(record) for record in await self._there().fetch(numbered(sql), *parameters)]
        except asyncpg.IntegrityConstraintViolationError as error:
            raise ConstraintViolated(words_of(error)) from None
        except asyncpg.DataError as error:
            # SECURITY: words of both hold the value, which may be a client's text (test_postgres.py).
            which = _ARGUMENT.search(str(error))
            number = f"parameter {which[1]}" if which else "a value"
            raise ValueError(f"{number} is nothing that its column can hold") from None
        except Exception as error:
            raise self._unavailable(error) from error

    async def listen(self, channels: Mapping[str, Callable[[int, str], None]], lost: Callable[[], None]) -> None:
        """channels: by name, called with the server's process of who told, and what. lost: called when the connection is. Raises DatabaseUnavailable."""
        connection = await self.get()
        try:
            connection.add_termination_listener(lambda _: lost())
            for channel in channels:
                await connection.add_listener(channel, lambda _, pid, told, text: channels[told](pid, text))
        except Exception as error:
            raise self._unavailable(error) from error

    def drop(self) -> None:
        """Whatever it was doing is undone by the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=CONNECT_TIMEOUT_S)
            except Exception:
                connection.terminate()

    def _there(self) -> asyncpg.Connection:
        """Never a new one: what is asked between `begin` and its end belongs to that transaction."""
        if self._connection is None or self._connection.is_closed():
            raise ConnectionError(errno.ECONNRESET, "the connection was lost")
        return self._connection

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        return DatabaseUnavailable(f"{self._place}: {words_of(error)}")

"""The gate's database in PostgreSQL 15 or newer, which several gates may share.

One gate writes at a time: each transaction begins with an advisory lock, so an operation sees what it would see with SQLite, alone. What the gates
lose in width they win back by the group: whatever waits shares one commit. PostgreSQL ends a gate's session that is silent in a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from proxy.config.postgres_url import read_postgres_url
from proxy.persistence.changes import Changes
from proxy.persistence.operations import DatabaseUnavailable, Operation, P, StateError, Statement, T
from proxy.persistence.outage import Outage
from proxy.persistence.postgres_link import Link, connect, words_of
from proxy.persistence.postgres_listener import CHANNEL, WORDS, Listener
from proxy.persistence.postgres_schema import LOCK, bring_up_to_date, check_current, look
from proxy.persistence.waiting import Call, Failure, Waiting, answer, check_text
from proxy.tasks import Tasks

READERS: Final = 3
MAX_BATCH: Final = 64
"""Whoever is first in a batch waits for its last, and so do the other gates."""
_WRITING: Final = 2
_BEGIN: Final = f"BEGIN; SELECT pg_advisory_xact_lock({LOCK}, {_WRITING}); SAVEPOINT operation"
_NEXT: Final = "RELEASE SAVEPOINT operation; SAVEPOINT operation"
_UNDO: Final = "ROLLBACK TO SAVEPOINT operation"
_COMMIT: Final = f"NOTIFY {CHANNEL}; COMMIT"


async def try_postgres(url: str) -> None:
    """Whether a gate would start with it; changes nothing. Raises StateError."""
    place = read_postgres_url(url).place
    try:
        connection = await connect(url)
        try:
            await look(connection)
        finally:
            connection.terminate()
    except StateError as error:
        raise StateError(f"{place}: {error}") from None
    except Exception as error:  # of asyncpg, or of the network
        raise StateError(f"{place}: {words_of(error)}") from None


class PostgresDatabase:
    """A `Database` (operations.py). A commit whose answer never came raises DatabaseUnavailable, and may have been done."""

    def __init__(self, url: str, *, is_guest: bool = False) -> None:
        """is_guest: of a command beside the gate, which finds the tables as a gate left them or not at all. Raises ValueError for a URL that cannot be read."""
        self._is_guest = is_guest
        self.place = read_postgres_url(url).place
        self.set_aside: Path | None = None
        self.is_past_unknown = False
        self._url = url
        self._writer = Link(url, self.place)
        self._writes, self._reads = _Line(), _Line()
        self._lanes = Tasks()
        self._is_open = False
        self._outage = Outage(self.place)
        ears = Link(url, self.place, is_reader=True)
        self._words: list[Callable[[str], None]] = []
        self._listener = Listener(ears, lambda: self._writer.pid, lambda: self._changes.tell(), self._hear)
        self._changes = Changes(self._listener.listen_forever)

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def is_open(self) -> bool:
        return self._is_open

    async def open(self) -> None:
        try:
            connection = await connect(self._url)
            try:
                if self._is_guest:
                    await check_current(connection)
                else:
                    self.is_past_unknown = await bring_up_to_date(connection)
            except BaseException:
                connection.terminate()
                raise
        except StateError as error:
            raise StateError(f"{self.place}: {error}") from None
        except Exception as error:  # of asyncpg, or of the network
            raise StateError(f"{self.place}: {words_of(error)}") from None
        self._writer.take(connection)
        self._lanes.supervise(self._write_forever, "database writer")
        for _ in range(READERS):
            self._lanes.supervise(self._read_forever, "database reader")
        self._is_open = True
        self._changes.start()

    async def close(self) -> None:
        self._is_open = False
        await self._changes.stop()
        self._writes.close()
        self._reads.close()
        await self._lanes.finish()

    async def run(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(T, await self._ask(self._writes, operation, args, kwargs))

    async def read(self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return cast(T, await self._ask(self._reads, operation, args, kwargs))

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._changes.add(callback)

    async def say(self, text: str) -> None:
        await self.run(_say, text)

    def on_word(self, callback: Callable[[str], None]) -> None:
        self._words.append(callback)

    def _hear(self, text: str) -> None:
        for callback in self._words:
            callback(text)

    def _ask(
        self, line: _Line, operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        if not self._is_open:
            raise DatabaseUnavailable(f"{self.place}: it is not open")
        return line.add(operation, args, kwargs)

    async def _write_forever(self) -> None:
        while batch := await self._writes.take(MAX_BATCH):
            try:
                outcomes = await self._write(batch)
            except Exception as error:  # a bug, and nobody waits for ever because of it
                self._writer.drop()
                outcomes = [Failure(error) for _ in batch]
            answer(batch, outcomes)
        await self._writer.close()

    async def _write(self, batch: Sequence[Call]) -> list[Any]:
        """One transaction for all: who fails is rolled back alone, and a commit that fails is everybody's."""
        outcomes: list[Any] = []
        try:
            await self._writer.begin(_BEGIN)
            for call in batch:
                outcome = await _outcome(self._writer, call)
                outcomes.append(outcome)
                if type(outcome) is Failure:
                    await self._writer.execute(_UNDO)
                elif len(outcomes) < len(batch):
                    await self._writer.execute(_NEXT)
            if await self._writer.execute(_COMMIT) != "COMMIT":
                # What PostgreSQL answers where something had failed unnoticed.
                raise DatabaseUnavailable(f"{self.place}: the transaction was rolled back")
        except DatabaseUnavailable as error:
            self._writer.drop()
            self._outage.begins(error)
            done = [outcome if type(outcome) is Failure else _failed(error) for outcome in outcomes]
            return done + [_failed(error) for _ in batch[len(done) :]]
        self._outage.is_over()
        return outcomes

    async def _read_forever(self) -> None:
        link = Link(self._url, self.place, is_reader=True)
        while batch := await self._reads.take_share(READERS):
            try:
                await self._read(link, batch)
            except DatabaseUnavailable as error:
                link.drop()
                answer(batch, [_failed(error) for _ in batch])
            except Exception as error:  # a bug, and nobody waits for ever because of it
                link.drop()
                answer(batch, [Failure(error) for _ in batch])
        await link.close()

    async def _read(self, link: Link, batch: Sequence[Call]) -> None:
        """All from one moment: the session's own settings say so."""
        await link.begin("BEGIN")
        for call in batch:
            outcome = await _outcome(link, call)
            answer([call], [outcome])
            if type(outcome) is Failure:
                await link.execute("ROLLBACK; BEGIN")
        await link.execute("ROLLBACK")


def _say(text: str) -> Operation[None]:
    yield Statement("SELECT pg_notify(?, ?)", (WORDS, text))


async def _outcome(link: Link, call: Call) -> Any:
    try:
        operation: Operation[Any] = call.operation(*call.args, **call.kwargs)
        try:
            sql, parameters = next(operation)
            while True:
                check_text(parameters)
                sql, parameters = operation.send(await link.fetch(sql, parameters))
        except StopIteration as end:
            return end.value
        finally:
            operation.close()
    except Exception as error:
        return Failure(error)


def _failed(error: DatabaseUnavailable) -> Failure:
    """Each caller gets one of its own."""
    own = DatabaseUnavailable(str(error))
    own.__cause__ = error
    return Failure(own)


class _Line:
    """Calls, and the tasks that wait for them."""

    def __init__(self) -> None:
        self._waiting = Waiting()
        self._is_closed = False
        self._wake = asyncio.Event()

    def add(self, operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        self._wake.set()
        return self._waiting.add(operation, args, kwargs)

    def close(self) -> None:
        """What was asked before is still done."""
        self._is_closed = True
        self._wake.set()

    async def take_share(self, takers: int) -> list[Call]:
        """As `take`, and leaves something for the others that take."""
        await self._wait()
        return self._waiting.take(-(-len(self._waiting) // takers))

    async def take(self, most: int) -> list[Call]:
        """At least one, or none after `close`."""
        await self._wait()
        return self._waiting.take(most)

    async def _wait(self) -> None:
        while not self._waiting.forget_left() and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()

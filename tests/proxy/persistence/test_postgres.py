"""PostgreSQL that is killed, restarted, frozen or full."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from proxy.persistence import postgres_link, postgres_schema
from proxy.persistence.operations import ConstraintViolated, DatabaseUnavailable, Operation, Rows, Statement
from proxy.persistence.postgres import PostgresDatabase
from tests.postgres import PostgresServer
from tests.proxy.persistence.conftest import opened
from tests.proxy.upstreams import GUARD_S


def put(run_id: str, gpu_s: float = 1.0) -> Operation[None]:
    yield Statement("INSERT INTO gpu_usage VALUES (?, 'alice', 100, ?)", (run_id, gpu_s))


def names() -> Operation[set[str]]:
    rows = yield Statement("SELECT run_id FROM gpu_usage")
    return {name for (name,) in rows}


def ask(sql: str, *parameters: Any) -> Operation[Rows]:
    return (yield Statement(sql, parameters))


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    async with opened(lambda: PostgresDatabase(postgres_url)) as database:
        assert isinstance(database, PostgresDatabase)
        yield database


async def until_it_works(attempt: Callable[[], Any]) -> Any:
    """Asked again by somebody who was refused."""
    async with asyncio.timeout(GUARD_S):
        while True:
            try:
                return await attempt()
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)


class Writer:
    """Writes one row after the other, and knows what it was told of each."""

    def __init__(self, database: PostgresDatabase, name: str) -> None:
        self.database, self.name = database, name
        self.kept: set[str] = set()
        self.refused: set[str] = set()
        self.progressed = asyncio.Event()

    async def write(self, is_over: asyncio.Event) -> None:
        number = 0
        while not is_over.is_set():
            run_id = f"{self.name}-{number}"
            number += 1
            try:
                await self.database.run(put, run_id)
                self.kept.add(run_id)
                self.progressed.set()
            except DatabaseUnavailable:
                self.refused.add(run_id)
                await asyncio.sleep(0.02)


async def test_a_server_that_is_killed_in_the_middle_loses_nothing_that_was_answered(
    own_postgres: PostgresServer,
) -> None:
    async with opened(lambda: PostgresDatabase(own_postgres.url())) as database:
        assert isinstance(database, PostgresDatabase)
        writers = [Writer(database, f"writer{number}") for number in range(8)]
        is_over = asyncio.Event()
        writing = [asyncio.ensure_future(writer.write(is_over)) for writer in writers]
        for _ in range(3):
            for writer in writers:
                writer.progressed.clear()
            async with asyncio.timeout(GUARD_S):
                for writer in writers:
                    await writer.progressed.wait()
            await asyncio.to_thread(own_postgres.kill)
            with pytest.raises(DatabaseUnavailable, match=r"postgresql://127\.0\.0\.1"):
                await database.read(names)
            await asyncio.to_thread(own_postgres.start)
        await until_it_works(lambda: database.run(put, "after"))
        is_over.set()
        await asyncio.gather(*writing)
        there = await until_it_works(lambda: database.read(names))
    kept = set().union(*(writer.kept for writer in writers))
    refused = set().union(*(writer.refused for writer in writers))
    assert refused
    assert kept | {"after"} <= there
    # What was refused may be there where the answer of its commit was lost, and nothing else is.
    assert there - kept - {"after"} <= refused


async def test_a_connection_that_was_ended_between_two_calls_is_not_noticed(
    database: PostgresDatabase, postgres_server: PostgresServer, postgres_url: str
) -> None:
    await asyncio.gather(database.run(put, "one"), *(database.read(names) for _ in range(10)))
    await end_sessions(postgres_server, postgres_url)
    await database.run(put, "two")
    assert await database.read(names) == {"one", "two"}


async def end_sessions(server: PostgresServer, url: str) -> None:
    """Of the gate, and waits until they have ended: their clients were told."""
    name = url.rpartition("/")[2]
    await server.execute(
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND application_name = 'comfygate'"
    )


async def test_one_that_is_ended_in_the_middle_fails_what_was_under_way(
    database: PostgresDatabase, postgres_server: PostgresServer, postgres_url: str
) -> None:
    loop = asyncio.get_running_loop()
    has_begun, may_go_on = asyncio.Event(), asyncio.Event()

    def slow() -> Operation[None]:
        yield from put("slow")
        loop.call_soon(has_begun.set)
        while not may_go_on.is_set():
            yield Statement("SELECT 1")

    slow_one, neighbour = (
        asyncio.ensure_future(database.run(slow)),
        asyncio.ensure_future(database.run(put, "neighbour")),
    )
    await has_begun.wait()
    waiting = asyncio.ensure_future(database.run(put, "later"))
    await asyncio.sleep(0)
    await end_sessions(postgres_server, postgres_url)
    may_go_on.set()
    answers = await asyncio.gather(slow_one, neighbour, waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable, DatabaseUnavailable, type(None)]
    assert await database.read(names) == {"later"}


async def test_no_half_of_an_operation_is_done_on_another_connection(database: PostgresDatabase) -> None:
    """It is lost between two statements, when nothing is asked: the second one must not find a new connection."""

    def halves() -> Operation[None]:
        yield from put("first")
        assert database._writer._connection is not None
        database._writer._connection.terminate()
        yield from put("second")

    with pytest.raises(DatabaseUnavailable):
        await database.run(halves)
    assert await database.read(names) == set()


async def test_a_server_that_answers_nothing_is_given_up_and_comes_back(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_link, "COMMAND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(postgres_link, "CONNECT_TIMEOUT_S", 0.5)
    async with opened(lambda: PostgresDatabase(own_postgres.url())) as database:
        await database.run(put, "before")
        own_postgres.freeze()
        for attempt in (database.run(put, "meanwhile"), database.read(names)):
            with pytest.raises(DatabaseUnavailable, match="no answer in time"):
                await attempt
        own_postgres.thaw()
        await until_it_works(lambda: database.run(put, "after"))
        assert {"before", "after"} <= await until_it_works(lambda: database.read(names))


async def test_a_gate_that_is_frozen_in_the_middle_holds_nobody_up_for_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one's session has the lock of writers and says nothing: the server ends it."""
    monkeypatch.setitem(postgres_link._SESSION, "idle_in_transaction_session_timeout", "300ms")
    async with opened(lambda: PostgresDatabase(postgres_url)) as database:
        frozen = await postgres_link.connect(postgres_url)
        await frozen.execute(f"BEGIN; SELECT pg_advisory_xact_lock({postgres_schema.LOCK}, 2)")
        async with asyncio.timeout(GUARD_S):
            await database.run(put, "one")
        assert await database.read(names) == {"one"}
        frozen.terminate()


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits are changed")
async def test_a_full_disk_is_told_and_writing_goes_on_when_there_is_room(own_postgres: PostgresServer) -> None:
    big = "INSERT INTO idempotent_submissions VALUES ('alice', ?, ?, '', 0, 0, '', ?, 0)"

    def fill(number: int) -> Operation[None]:
        with open("/dev/urandom", "rb") as noise:
            yield Statement(big, (number.to_bytes(4, "big"), b"", noise.read(2**20)))

    async with opened(lambda: PostgresDatabase(own_postgres.url())) as database:
        await database.run(put, "before")
        assert isinstance(database, PostgresDatabase)
        pid = database._writer.pid
        assert pid is not None
        # The files of its log have 16 MiB: they do not count here.
        own_postgres.limit_files(pid, 20 * 2**20)
        answers = await asyncio.gather(*(database.run(fill, number) for number in range(30)), return_exceptions=True)
        refused = [answer for answer in answers if answer is not None]
        assert refused
        assert {type(answer) for answer in refused} == {DatabaseUnavailable}
        assert "could not extend file" in str(refused[0])
        assert await database.read(names) == {"before"}
        own_postgres.limit_files(pid, None)
        assert database._writer.pid == pid, "the connection was kept"
        for number in range(100, 105):
            await database.run(fill, number)
        await database.run(put, "after")
        assert await database.read(names) == {"before", "after"}


async def test_after_a_failed_attempt_nobody_waits_for_the_next_one(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []
    connect = asyncpg.connect

    async def counted(*args: Any, **kwargs: Any) -> Any:
        attempts.append("connect")
        return await connect(*args, **kwargs)

    async with opened(lambda: PostgresDatabase(own_postgres.url())) as database:
        await asyncio.to_thread(own_postgres.kill)
        monkeypatch.setattr(asyncpg, "connect", counted)
        monkeypatch.setattr(postgres_link, "_FIRST_BACK_OFF_S", 60.0)
        monkeypatch.setattr(postgres_link, "_MAX_BACK_OFF_S", 60.0)
        for _ in range(20):
            with pytest.raises(DatabaseUnavailable):
                await database.run(put, "one")
        assert attempts == ["connect"]


async def test_a_sum_is_a_number_like_all_others(database: PostgresDatabase) -> None:
    [row] = await database.read(
        ask, "SELECT SUM(x), SUM(-x), AVG(x) FROM (SELECT CAST(3 AS BIGINT) AS x UNION ALL SELECT 4) AS numbers"
    )
    assert (row, [type(value) for value in row]) == ((7, -7, 3.5), [int, int, float])


async def test_a_listener_hears_again_after_the_server_was_gone(own_postgres: PostgresServer) -> None:
    async with opened(lambda: PostgresDatabase(own_postgres.url())) as one:
        told = asyncio.Event()
        one.on_change(told.set)
        async with asyncio.timeout(GUARD_S):
            await told.wait()
            told.clear()
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(own_postgres.start)
            await told.wait()  # nobody knows what came meanwhile
            told.clear()
            async with opened(lambda: PostgresDatabase(own_postgres.url())) as two:
                await two.run(put, "foreign")
                await told.wait()


async def test_a_commit_that_was_a_rollback_is_no_success(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL answers COMMIT of a failed transaction without an error."""
    monkeypatch.setattr("proxy.persistence.postgres._UNDO", "SELECT 1")  # it goes on as if nothing had failed
    monkeypatch.setattr("proxy.persistence.postgres._NEXT", "SELECT 1")
    await database.run(put, "before")
    real = database._writer.execute

    async def forgets(sql: str) -> str:
        try:
            return await real(sql)
        except DatabaseUnavailable:
            return ""

    monkeypatch.setattr(database._writer, "execute", forgets)
    good, bad = await asyncio.gather(database.run(put, "good"), database.run(ask, "no SQL"), return_exceptions=True)
    assert isinstance(bad, DatabaseUnavailable)
    assert isinstance(good, DatabaseUnavailable)
    monkeypatch.undo()
    assert await database.read(names) == {"before"}


async def test_what_does_not_fit_is_told_without_the_value(database: PostgresDatabase) -> None:
    words = "a client's words"
    for value in (words, "1.5", 2**63):
        with pytest.raises(ValueError, match="parameter 2 is nothing that its column can hold") as caught:
            await database.run(ask, "INSERT INTO revoked_sessions VALUES (?, 's', ?, 1)", "key", value)
        assert words not in "".join(traceback.format_exception(caught.value))
    await database.run(put, words)
    with pytest.raises(ConstraintViolated, match="unique constraint") as violated:
        await database.run(put, words)
    assert words not in "".join(traceback.format_exception(violated.value))

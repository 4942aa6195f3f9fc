"""What every database of the gate does, asked of each: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from proxy.persistence import postgres_schema, sqlite_file
from proxy.persistence.migrations import MIGRATIONS
from proxy.persistence.operations import (
    ConstraintViolated,
    Database,
    DatabaseUnavailable,
    Operation,
    Rows,
    StateError,
    Statement,
)
from tests.proxy.persistence.conftest import Make, opened
from tests.proxy.upstreams import GUARD_S


def put(run_id: str, gpu_s: float = 1.0) -> Operation[str]:
    [(name,)] = yield Statement("INSERT INTO gpu_usage VALUES (?, 'alice', 100, ?) RETURNING run_id", (run_id, gpu_s))
    return str(name)


def names() -> Operation[list[str]]:
    rows = yield Statement("SELECT run_id FROM gpu_usage ORDER BY run_id")
    return [name for (name,) in rows]


def ask(sql: str, *parameters: Any) -> Operation[Rows]:
    return (yield Statement(sql, parameters))


async def test_what_was_written_is_read_at_once_and_after_a_restart(make: Make) -> None:
    async with opened(make) as database:
        assert await database.run(put, "one", gpu_s=2.5) == "one"
        assert await database.read(names) == ["one"]
    async with opened(make) as database:
        assert await database.read(ask, "SELECT run_id, gpu_s FROM gpu_usage") == [("one", 2.5)]


async def test_it_says_whether_it_is_open(make: Make) -> None:
    database = make()

    async def is_closed() -> bool:
        for ask_it in (database.run, database.read):
            with pytest.raises(DatabaseUnavailable, match="not open"):
                await ask_it(names)
        return not database.is_open

    assert await is_closed()
    await database.open()
    assert database.is_open
    await database.close()
    await database.close()
    assert await is_closed()


async def test_a_value_comes_back_as_what_it_was(database: Database) -> None:
    """Each type with its bounds, in columns of that type."""
    row = ("alice", b"\x00\xff" * 16, b"", "a-ü-\U0001f3a8-'\"?", 0.1 + 0.2, -(2**63), "", bytes(1024), 2**63 - 1)
    insert = f"INSERT INTO idempotent_submissions VALUES ({'?, ' * 8}?)"
    assert await database.run(ask, insert, *row) == []
    [found] = await database.read(ask, "SELECT * FROM idempotent_submissions WHERE key_hash = ?", row[1])
    assert found == row
    assert [type(part) for part in found] == [type(part) for part in row]
    [sums] = await database.read(ask, "SELECT COUNT(*), SUM(size), SUM(created_s) FROM idempotent_submissions")
    assert (sums, [type(part) for part in sums]) == ((1, 2**63 - 1, row[4]), [int, int, float])
    assert await database.read(ask, "SELECT SUM(size) FROM idempotent_submissions WHERE status > 0") == [(None,)]


async def test_texts_are_compared_by_their_letters_alone(database: Database) -> None:
    for name in ("b", "B", "a", "", "ä", "A_", "a b"):
        await database.run(put, name)
    assert await database.read(names) == ["", "A_", "B", "a", "a b", "b", "ä"]


async def test_what_a_text_cannot_hold_is_refused_alone(database: Database) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await database.run(put, "a\0b")
    with pytest.raises(ValueError, match=r"surrogate|parameter 1 is nothing that its column can hold"):
        await database.run(put, "\ud800")
    await database.run(put, "good")
    assert await database.read(names) == ["good"]


async def test_an_operation_is_all_or_nothing(database: Database) -> None:
    def fails() -> Operation[None]:
        yield from put("half")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await database.run(fails)
    assert await database.read(names) == []


async def test_an_operation_sees_what_it_wrote(database: Database) -> None:
    def writes() -> Operation[list[str]]:
        yield from put("a")
        yield from put("b")
        return (yield from names())

    assert await database.run(writes) == ["a", "b"]


async def test_of_those_that_come_together_only_the_bad_ones_fail(database: Database) -> None:
    def fails(number: int) -> Operation[None]:
        yield from put(f"gone-{number}")
        raise RuntimeError(f"number {number}")

    calls: list[Awaitable[Any]] = []
    for number in range(100):
        calls.append(database.run(fails, number) if number % 3 else database.run(put, f"kept-{number:02}"))
    calls += [database.run(put, "kept-00"), database.run(ask, "SELECT * FROM nowhere"), database.run(put, "last")]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(answers[:100]):
        if number % 3:
            assert isinstance(answer, RuntimeError)
            assert str(answer) == f"number {number}"
        else:
            assert answer == f"kept-{number:02}"
    assert isinstance(answers[100], ConstraintViolated)
    assert isinstance(answers[101], DatabaseUnavailable)
    assert "nowhere" in str(answers[101])
    assert answers[102] == "last"
    assert await database.read(names) == [*(f"kept-{number:02}" for number in range(0, 100, 3)), "last"]


async def test_what_fails_before_its_first_statement_fails_alone(database: Database) -> None:
    def fails() -> Operation[None]:
        if database.is_open:
            raise LookupError("no such job")
        yield Statement("")

    bad, good = await asyncio.gather(database.run(fails), database.run(put, "good"), return_exceptions=True)
    assert isinstance(bad, LookupError)
    assert good == "good"
    with pytest.raises(LookupError):
        await database.read(fails)
    assert await database.read(names) == ["good"]


async def test_a_row_that_breaks_the_schema_is_told_apart(database: Database) -> None:
    await database.run(put, "one")
    with pytest.raises(ConstraintViolated):
        await database.run(put, "one")
    with pytest.raises(ConstraintViolated):
        await database.run(ask, "INSERT INTO gpu_usage VALUES ('two', 'alice', ?, 1)", None)
    assert await database.read(names) == ["one"]


async def test_an_operation_is_ended_where_it_fails(database: Database) -> None:
    """What it would clean up, it does."""
    ended: list[str] = []

    def asks(sql: str) -> Operation[None]:
        try:
            yield Statement(sql)
            ended.append("not reached")
        finally:
            ended.append(sql)

    for ask_it in (database.run, database.read):
        with pytest.raises(DatabaseUnavailable):
            await ask_it(asks, "no SQL")
    assert ended == ["no SQL", "no SQL"]


async def test_what_only_reads_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.read(put, "one")
    await database.run(put, "two")
    assert await database.read(names) == ["two"]


async def test_reading_waits_for_no_commit_and_sees_one_moment(database: Database) -> None:
    """A writer stands in the middle of its operation, as long as the reader takes."""
    loop = asyncio.get_running_loop()
    wrote, has_read = asyncio.Event(), asyncio.Event()

    def writes() -> Operation[None]:
        yield from put("one")
        loop.call_soon_threadsafe(wrote.set)
        while not has_read.is_set():
            yield Statement("SELECT 1")

    writing = asyncio.ensure_future(database.run(writes))
    async with asyncio.timeout(GUARD_S):
        await wrote.wait()
        assert await database.read(names) == []
        has_read.set()
        await writing
    assert await database.read(names) == ["one"]


async def test_a_long_reading_sees_one_moment(database: Database) -> None:
    loop = asyncio.get_running_loop()
    has_begun, was_written = asyncio.Event(), asyncio.Event()

    def reads() -> Operation[list[list[str]]]:
        before = yield from names()
        loop.call_soon_threadsafe(has_begun.set)
        while not was_written.is_set():
            yield Statement("SELECT 1")
        return [before, (yield from names())]

    reading = asyncio.ensure_future(database.read(reads))
    async with asyncio.timeout(GUARD_S):
        await has_begun.wait()
        await database.run(put, "one")
        was_written.set()
        assert await reading == [[], []]


async def test_one_process_after_the_other_changes_what_it_read(make: Make) -> None:
    """Two processes add one to a number that they read before, many at once: no addition is lost."""

    def adds() -> Operation[None]:
        [(count,)] = yield Statement("SELECT gpu_s FROM gpu_usage WHERE run_id = 'count'")
        yield Statement("UPDATE gpu_usage SET gpu_s = ? WHERE run_id = 'count'", (count + 1,))

    async with opened(make) as one, opened(make) as two:
        await one.run(put, "count", gpu_s=0.0)
        await asyncio.gather(*(database.run(adds) for _ in range(50) for database in (one, two)))
        assert await one.read(ask, "SELECT gpu_s FROM gpu_usage") == [(100.0,)]


async def test_a_caller_that_goes_away_disturbs_nobody(database: Database) -> None:
    leaving = [asyncio.ensure_future(ask_it(names)) for ask_it in (database.run, database.read) for _ in range(5)]
    staying = [asyncio.ensure_future(database.run(put, f"{number}")) for number in range(5)]
    await asyncio.sleep(0)
    for call in leaving:
        call.cancel()
    assert await asyncio.gather(*staying) == ["0", "1", "2", "3", "4"]
    assert all(call.cancelled() for call in leaving)
    assert await database.read(names) == ["0", "1", "2", "3", "4"]


async def test_what_was_asked_before_the_end_is_done(make: Make) -> None:
    database = make()
    await database.open()
    asked = [asyncio.ensure_future(database.run(put, f"{number:03}")) for number in range(300)]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*asked)) == 300
    async with opened(make) as again:
        assert len(await again.read(names)) == 300


async def test_another_processes_writing_is_told_and_ones_own_is_not(make: Make) -> None:
    async with opened(make) as one, opened(make) as two:
        told: list[str] = []
        was_told = asyncio.Event()

        def hear() -> None:
            told.append("changed")
            was_told.set()

        stop = one.on_change(hear)
        await watched(two, was_told)
        # What was written before may still be told of. What is told of its own writing would be told each time.
        for number in range(10):
            told.clear()
            await one.run(put, f"own-{number}")
            await asyncio.sleep(0.6)  # as long as it would take
            if not told:
                break
        assert told == []
        was_told.clear()
        await two.run(put, "foreign")
        async with asyncio.timeout(GUARD_S):
            await was_told.wait()
        assert "foreign" in await one.read(names)
        stop()
        told.clear()
        await two.run(put, "unheard")
        await asyncio.sleep(0.6)
        assert told == []


async def watched(two: Database, was_told: asyncio.Event) -> None:
    """Until the watch is on: it may tell of what came before it knew."""
    async with asyncio.timeout(GUARD_S):
        while not was_told.is_set():
            await two.run(put, f"before-{asyncio.get_running_loop().time()}")
            await asyncio.sleep(0.05)


async def test_several_may_start_at_once(make: Make) -> None:
    databases = [make() for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    for number, database in enumerate(databases):
        await database.run(put, f"{number}")
    assert await databases[0].read(names) == ["0", "1", "2", "3"]
    for database in databases:
        await database.close()


async def test_a_newer_one_is_left_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(make) as database:
        await database.run(put, "one")
    for module in (postgres_schema, sqlite_file):
        monkeypatch.setattr(module, "MIGRATIONS", MIGRATIONS[:-1])
    with pytest.raises(StateError, match=r"written by a newer comfygate \(schema \d+, this one knows \d+\): install"):
        await make().open()
    monkeypatch.undo()
    async with opened(make) as database:
        assert await database.read(names) == ["one"]


async def test_a_step_that_fails_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(make) as database:
        await database.run(put, "one")
    bad = (*MIGRATIONS, ("CREATE TABLE more (x INTEGER)", "DROP TABLE gpu_usage", "no SQL"))
    for module in (postgres_schema, sqlite_file):
        monkeypatch.setattr(module, "MIGRATIONS", bad)
    with pytest.raises(StateError, match="syntax error"):
        await make().open()
    monkeypatch.undo()
    async with opened(make) as database:
        assert await database.read(names) == ["one"]

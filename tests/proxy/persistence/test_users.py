"""GPU seconds, idempotency keys and ended sessions are the same thing in every database."""

from __future__ import annotations

import logging

import pytest

from proxy.auth.revoked_sessions import RevokedSessions
from proxy.http.errors import refusal_for
from proxy.jobs import idempotency_db
from proxy.jobs.idempotency_db import KEPT_S, Kept, KeptSubmissions, Place
from proxy.limits.gpu_usage_db import GpuUsage
from proxy.persistence.operations import Database, DatabaseUnavailable, Operation, Statement
from proxy.persistence.postgres import PostgresDatabase
from tests.proxy.auth.test_revoked_sessions import session
from tests.proxy.auth.test_sessions import KEY_ID, NOW_S, Clock
from tests.proxy.persistence.conftest import Make, opened


def place(number: int, owner: str = "alice") -> Place:
    return Place(owner, number.to_bytes(32, "big"))


def kept(created_s: float, body: bytes = b"{}") -> Kept:
    return Kept(b"f" * 32, "an-id", created_s, 200, "application/json", body)


async def test_gpu_seconds_are_counted_once_and_summed(database: Database) -> None:
    usage = GpuUsage(database)
    assert await usage.add("one", "alice", 100.0, 1.5)
    assert not await usage.add("one", "alice", 100.0, 1.5)
    assert await usage.add("two", "alice", 200.5, 2)
    assert await usage.add("three", "bob", 200.0, 4.0)
    assert await usage.totals_s([("alice", 0.0), ("alice", 200.5), ("alice", 201.0), ("bob", 0.0)]) == [
        3.5,
        2.0,
        0.0,
        4.0,
    ]
    await usage.forget_before(200.0)
    assert await usage.totals_s([("alice", 0.0), ("bob", 0.0)]) == [2.0, 4.0]


async def test_idempotency_keys_are_kept_replaced_and_pushed_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency_db, "MAX_KEYS", 3)
    monkeypatch.setattr(idempotency_db, "LOOK_EACH", 0)
    monkeypatch.setattr(idempotency_db, "LOOK_EACH_BYTES", 0)
    submissions = KeptSubmissions(database)
    await submissions.put(place(0, "mallory"), kept(0.5), 1.0)
    for number in range(5):
        await submissions.put(place(number), kept(1.0 + number), 1.0)
    assert await submissions.put(place(4), kept(9.0, b"\x00\xff"), 9.0, over=kept(5.0))
    assert not await submissions.put(place(4), kept(9.5), 9.5, over=kept(5.0))
    found = [await submissions.find(place(number), 10.0) for number in range(5)]
    assert found == [None, None, kept(3.0), kept(4.0), kept(9.0, b"\x00\xff")]
    assert await submissions.find(place(0, "mallory"), 10.0) == kept(0.5)
    await submissions.forget(place(2), kept(3.0))
    assert await submissions.find(place(2), 10.0) is None
    monkeypatch.setattr(idempotency_db, "MAX_BYTES", 2 * idempotency_db.ROW_BYTES)
    await submissions.put(place(5), kept(10.0, b""), 10.0)
    assert [await submissions.find(place(number), 10.0) for number in (3, 4, 5)] == [None, None, kept(10.0, b"")]
    assert await submissions.find(place(5), 10.0 + KEPT_S) is None


async def test_ended_sessions_stay_ended(make: Make) -> None:
    async with opened(make) as database:
        clock = Clock()
        clock.now_s += 1  # PostgreSQL's tables are new: what was issued before has ended
        revoked = RevokedSessions(database, clock)
        await revoked.load()
        revoked.add(KEY_ID, session("a", issued_s=NOW_S + 1))
        await revoked.save()
        revoked.add(KEY_ID, session("a", issued_s=NOW_S + 1))
        await revoked.save()
    async with opened(make) as database:
        revoked = RevokedSessions(database, clock)
        await revoked.load()
        assert revoked.has(KEY_ID, session("a", issued_s=NOW_S + 1))
        assert not revoked.has(KEY_ID, session("b", issued_s=NOW_S + 1))


async def test_an_outage_is_told_once_and_its_end_too(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(make) as database:

        def fails() -> Operation[None]:
            """All of its group, since the transaction is gone."""
            yield Statement("SELECT 1")
            if isinstance(database, PostgresDatabase):
                database._writer.drop()
            yield Statement("ROLLBACK")

        with pytest.raises(LookupError):
            await database.run(fails_alone)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await database.run(fails)
        await GpuUsage(database).add("one", "alice", 1.0, 1.0)
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == [logging.ERROR, logging.WARNING]
    assert told[0][1].startswith(f"the database {database.place} cannot be written: ")
    assert told[1][1] == f"the database {database.place} can be written again"


def fails_alone() -> Operation[None]:
    yield Statement("SELECT 1")
    raise LookupError("no such job")


def test_a_client_is_told_nothing_of_where_it_is() -> None:
    refusal = refusal_for(DatabaseUnavailable("postgresql://db.internal:5432/jobs: no answer in time"))
    assert refusal is not None
    assert (refusal.status, refusal.type, dict(refusal.headers)) == (503, "database_unavailable", {"Retry-After": "5"})
    assert b"internal" not in refusal.body("id")

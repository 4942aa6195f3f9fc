"""Sessions that were ended stay ended: over restarts, over a full disk, and where the database was damaged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.auth import revoked_sessions as module
from proxy.auth.api_keys import Session
from proxy.auth.revoked_sessions import OLD_FILE, RevokedSessions
from proxy.auth.sessions import Sessions, open_sessions
from proxy.config.identity import SessionSettings
from proxy.persistence.operations import Operation, Statement
from proxy.persistence.postgres import PostgresDatabase
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.proxy.auth.test_sessions import (
    KEY,
    KEY_ID,
    NOW_S,
    OTHER,
    OTHER_ID,
    Clock,
    cookie_of,
    make_sessions,
    refused,
    ring_of,
)
from tests.proxy.conftest import opened
from tests.proxy.upstreams import GUARD_S


def session(letter: str, expires_s: int = NOW_S + 1000, issued_s: int = NOW_S) -> Session:
    return Session(letter * 32, issued_s, expires_s)


async def loaded(state: SqliteDatabase, clock: Clock) -> RevokedSessions:
    revoked = RevokedSessions(state, clock, state.path.parent)
    await revoked.load()
    return revoked


def rename(old: str, new: str) -> Operation[None]:
    yield Statement(f"ALTER TABLE {old} RENAME TO {new}")


def rows() -> Operation[set[tuple[Any, ...]]]:
    return set((yield Statement("SELECT key_id, session_id FROM revoked_sessions")))


def test_too_many_ended_sessions_of_a_key_end_all_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOKED_PER_KEY", 3)
    clock = Clock()
    ring, sessions = ring_of(clock), make_sessions(clock)
    key = ring.verify(KEY)
    ended = [cookie_of(sessions.begin(key)) for _ in range(4)]
    bystander, neighbour = cookie_of(sessions.begin(key)), cookie_of(sessions.begin(ring.verify(OTHER)))
    for cookie in ended:
        sessions.end(cookie, ring)
    assert all(refused(sessions, cookie, ring) for cookie in [*ended, bystander])
    assert not refused(sessions, neighbour, ring)
    clock.now_s += 1
    assert not refused(sessions, cookie_of(sessions.begin(key)), ring)
    assert all(refused(sessions, cookie, ring) for cookie in ended)


async def test_no_restart_revives_an_ended_session(
    tmp_path: Path, state: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    ring = ring_of(clock)

    async def started() -> Sessions:
        sessions = open_sessions(SessionSettings(lifetime=1000), None, tmp_path, clock, state=state)
        await sessions.revoked.load()
        return sessions

    first = await started()
    ended, kept = (cookie_of(first.begin(ring.verify(KEY))) for _ in range(2))
    first.end(ended, ring)
    await first.save()
    second = await started()
    assert refused(second, ended, ring)
    assert not refused(second, kept, ring)
    monkeypatch.setattr(module, "MAX_REVOKED_PER_KEY", 0)
    second.end(kept, ring)
    await second.save()
    assert refused(await started(), kept, ring)


async def test_what_would_have_ended_by_now_is_forgotten(state: SqliteDatabase) -> None:
    clock = Clock()
    revoked = await loaded(state, clock)
    revoked.add(KEY_ID, session("a", NOW_S + 10))
    await revoked.save()
    assert await state.run(rows) == {(KEY_ID, "a" * 32)}
    clock.now_s += 10
    revoked.add(OTHER_ID, session("b", NOW_S + 100))
    await revoked.save()
    assert await state.run(rows) == {(OTHER_ID, "b" * 32)}
    clock.now_s += 100
    assert not (await loaded(state, clock)).has(OTHER_ID, session("b"))


async def test_sessions_that_ended_after_all_others_of_their_key_stay_ended(
    state: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REVOKED_PER_KEY", 2)
    clock = Clock()
    revoked = await loaded(state, clock)
    for letter in "abc":
        revoked.add(KEY_ID, session(letter))
    clock.now_s += 5
    late = session("d", issued_s=NOW_S + 5)
    revoked.add(KEY_ID, late)
    await revoked.save()
    assert await state.run(rows) == {(KEY_ID, ""), (KEY_ID, "d" * 32)}
    again = await loaded(state, clock)
    assert again.has(KEY_ID, session("z"))
    assert again.has(KEY_ID, late)
    assert not again.has(KEY_ID, session("e", issued_s=NOW_S + 5))


async def test_the_list_of_before_is_taken_over_once(state: SqliteDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """A key whose sessions all had ended had others that ended after that: both lines count."""
    old = state.path.with_name(OLD_FILE)
    lines = [
        "\ufffd",
        f"session {KEY_ID} {'a' * 32} {NOW_S + 100}",
        f"session {OTHER_ID} {'b' * 32} {NOW_S - 1}",
        f"floor {KEY_ID} {NOW_S - 50} {NOW_S + 100}",
    ]
    old.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for _ in range(2):
        revoked = await loaded(state, Clock())
        assert revoked.has(KEY_ID, session("a"))
        assert revoked.has(KEY_ID, session("c", issued_s=NOW_S - 50))
        assert not revoked.has(KEY_ID, session("c", issued_s=NOW_S - 49))
        assert not revoked.has(OTHER_ID, session("b"))
    assert not old.exists()
    assert old.with_name(f"{OLD_FILE}.migrated").read_text(encoding="utf-8").splitlines() == lines
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_list_of_before_that_cannot_be_read_stops_the_start(state: SqliteDatabase) -> None:
    state.path.with_name(OLD_FILE).mkdir()
    with pytest.raises(OSError, match=OLD_FILE):
        await RevokedSessions(state, Clock(), state.path.parent).load()


async def test_a_full_disk_is_said_the_session_has_ended_and_is_written_later(
    state: SqliteDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    revoked = await loaded(state, clock)
    revoked.add(KEY_ID, session("a"))
    await state.run(rename, "revoked_sessions", "away")
    await revoked.save()
    assert revoked.has(KEY_ID, session("a"))
    assert "ended sessions cannot be written" in caplog.text
    await state.run(rename, "away", "revoked_sessions")
    await revoked.save()
    assert (await loaded(state, clock)).has(KEY_ID, session("a"))


async def test_where_the_database_was_damaged_every_session_of_before_has_ended(tmp_path: Path) -> None:
    path, clock = tmp_path / STATE_FILE, Clock()
    path.write_bytes(b"this is no database" * 1000)
    async with opened(path) as state:
        revoked = await loaded(state, clock)
        assert revoked.has(KEY_ID, session("a"))
        clock.now_s += 1
        assert not revoked.has(KEY_ID, session("b", issued_s=NOW_S + 1))
    async with opened(path) as state:
        again = await loaded(state, clock)
        assert again.has(OTHER_ID, session("a"))
        assert not again.has(OTHER_ID, session("b", issued_s=NOW_S + 1))


async def test_without_a_database_sessions_end_in_the_process_alone() -> None:
    revoked = RevokedSessions(None, Clock())
    await revoked.load()
    revoked.add(KEY_ID, session("a"))
    await revoked.save()
    assert revoked.has(KEY_ID, session("a"))


async def test_where_the_tables_are_new_every_session_of_before_has_ended(postgres_url: str) -> None:
    """Which ones were ended is in another database; who comes after the first start has a session for good."""
    before, later = session("a", issued_s=NOW_S - 1), session("b", issued_s=NOW_S)
    for _ in range(2):
        database = PostgresDatabase(postgres_url)
        await database.open()
        revoked = RevokedSessions(database, Clock())
        await revoked.load()
        assert revoked.has(KEY_ID, before)
        assert not revoked.has(KEY_ID, later)
        await database.close()


async def test_another_gate_hears_of_a_session_that_ended(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And forgets nothing of what it could not write itself, also where the other one has ended all sessions of a key."""
    monkeypatch.setattr(module, "READ_AGAIN_S", 0.0)
    one, two = PostgresDatabase(postgres_url), PostgresDatabase(postgres_url)
    await one.open()
    await two.open()
    here, there = RevokedSessions(one, Clock()), RevokedSessions(two, Clock())
    await here.load()
    await there.load()
    own = session("c", issued_s=NOW_S + 5)
    there.add(KEY_ID, own)  # and is not saved
    here.add(KEY_ID, session("a"))
    await here.save()
    await until(lambda: there.has(KEY_ID, session("a")))
    monkeypatch.setattr(module, "MAX_REVOKED_PER_KEY", 0)
    here.add(KEY_ID, session("b"))
    await here.save()
    await until(lambda: there.has(KEY_ID, session("z", issued_s=NOW_S)))
    assert there.has(KEY_ID, own)
    assert not there.has(KEY_ID, session("d", issued_s=NOW_S + 5))
    await one.close()
    await two.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not is_so():
            await asyncio.sleep(0.01)

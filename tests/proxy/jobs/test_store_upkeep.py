"""Upkeep of recorded jobs, asked of SQLite and of PostgreSQL: what others have written, leases, what is kept, what the operator wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy.jobs import store_upkeep
from proxy.jobs.idempotency_db import Kept, KeptSubmissions, Place
from proxy.jobs.job_rows import Bounds, JobRow, StoredState
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import JobIdTaken, cancel_waiting, forget, start
from proxy.jobs.store_reading import changes, documents, find, listing, submitted_of
from proxy.jobs.store_upkeep import (
    drain,
    drop_wished,
    leave,
    renew_leases,
    retain,
    retry,
    settle_unsaid,
    take_over,
    wish,
)
from proxy.persistence.operations import Database
from tests.proxy.jobs.stored import COMFYUI, GATE, OTHER_GATE, SUBMITTED, end, put

NO_BOUND = Bounds(0.0, 10**6, 10**9)


async def known(database: Database, name: str) -> JobRow:
    found = await database.read(find, name)
    assert found is not None
    return found


async def given(database: Database, window: int, gate: str = GATE) -> list[str]:
    jobs = await database.run(give, COMFYUI, window, gate, 150.0, 1000.0, {})
    return [each.job.prompt_id for each in jobs]


async def test_a_neighbours_job_is_not_taken_for_one_that_nobody_was_told_of(database: Database) -> None:
    """Another gate gave it an id that was free, since the one that this gate is not sure of was never written."""
    theirs = await put(database, "1", "mallory", window=1)
    await KeptSubmissions(database).put(Place("mallory", b"key"), Kept(b"fingerprint", "1", 150.0), 150.0)
    assert await database.run(settle_unsaid, "alice", "1", GATE, 160.0) is None
    assert await known(database, "1") == theirs


async def test_changes_are_what_was_written_since(database: Database) -> None:
    first, second = await put(database, "1"), await put(database, "2")
    everything = await database.read(changes, 0)
    assert (everything.jobs, everything.forgotten) == ([first, second], [])
    assert everything.version == second.version
    assert await database.read(changes, everything.version) == (everything.version, [], [])
    await database.run(give, COMFYUI, 1, GATE, 150.0, 1000.0, {})
    await database.run(cancel_waiting, "alice", ["2"], 160.0)
    later = await database.read(changes, everything.version)
    assert [(job.prompt_id, job.state) for job in later.jobs] == [("1", "dispatched"), ("2", "canceled")]
    await end(database, "1")
    await database.run(forget, "alice", ["1"])
    last = await database.read(changes, later.version)
    assert (last.jobs, last.forgotten) == ([], ["1"])


async def test_who_has_read_up_to_a_version_misses_nothing_however_many_write(
    database: Database, make_database: Callable[[], Database]
) -> None:
    """Two processes write, and one of them reads all the time."""
    other, seen, version = make_database(), set[str](), 0
    await other.open()
    try:
        names = {str(number) for number in range(30)}
        writing = [asyncio.ensure_future(put((database, other)[int(name) % 2], name)) for name in names]
        while not all(each.done() for each in writing):
            found = await database.read(changes, version)
            assert found.version >= version
            assert all(job.version > version for job in found.jobs)
            seen |= {job.prompt_id for job in found.jobs}
            version = found.version
        await asyncio.gather(*writing)
        seen |= {job.prompt_id for job in (await database.read(changes, version)).jobs}
        assert seen == names
        sequences = [job.sequence for job in (await database.read(changes, 0)).jobs]
        assert len(set(sequences)) == len(names)
    finally:
        await other.close()


async def test_two_processes_give_each_job_once(database: Database, make_database: Callable[[], Database]) -> None:
    other = make_database()
    await other.open()
    try:
        for number in range(20):
            await put(database, str(number))
        asked = await asyncio.gather(
            *(
                given(each, window, gate)
                for window in (4, 9, 20)
                for each, gate in ((database, GATE), (other, OTHER_GATE))
            )
        )
        found = [name for names in asked for name in names]
        assert sorted(found, key=int) == [str(number) for number in range(20)]
    finally:
        await other.close()


async def test_a_lease_that_is_renewed_is_nobody_elses(database: Database) -> None:
    for name in ("1", "2", "waits"):
        await put(database, name)
    await given(database, 2)
    before = await database.read(changes, 0)
    await database.run(renew_leases, GATE, 2000.0)
    assert (await database.read(changes, before.version)).jobs == [], "no news for anybody"
    assert await database.run(take_over, OTHER_GATE, 1999.0, 3000.0) == []
    assert sorted(await database.run(take_over, OTHER_GATE, 2001.0, 3000.0)) == ["1", "2"]
    assert [(await known(database, name)).gate for name in ("1", "2", "waits")] == [OTHER_GATE, OTHER_GATE, ""]
    await database.run(renew_leases, GATE, 9000.0)
    assert (await known(database, "1")).lease_until_s == 3000.0, "the first gate has lost it"
    assert await database.run(take_over, GATE, 2500.0, 3500.0) == []


async def test_what_a_gate_leaves_is_whoevers_comes_first(database: Database) -> None:
    for name in ("1", "2", "3", "waits"):
        await put(database, name)
    await given(database, 3)
    before = await database.read(changes, 0)
    await database.run(leave, OTHER_GATE, [])
    assert (await database.read(changes, before.version)).jobs == [], "it follows none"
    await database.run(leave, GATE, ["2"])
    left = (await database.read(changes, before.version)).jobs
    assert [(job.prompt_id, job.state, job.gate) for job in left] == [("1", "dispatched", ""), ("3", "dispatched", "")]
    assert sorted(await database.run(take_over, OTHER_GATE, 0.5, 3000.0)) == ["1", "3"]
    assert (await known(database, "2")).gate == GATE


async def test_what_has_ended_has_no_lease(database: Database) -> None:
    await put(database, "1", window=1)
    await end(database, "1")
    assert await database.run(take_over, OTHER_GATE, 10.0**9, 10.0**9) == []


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (NO_BOUND, {"age": [], "count": [], "bytes": []}),
        (NO_BOUND._replace(oldest_s=202.0), {"age": ["1", "0"], "count": [], "bytes": []}),
        (NO_BOUND._replace(max_jobs=3), {"age": [], "count": ["0"], "bytes": []}),
        (NO_BOUND._replace(max_bytes=250), {"age": [], "count": [], "bytes": ["1", "0"]}),
        (Bounds(201.0, 2, 150), {"age": ["0"], "count": ["1"], "bytes": ["2"]}),
        (NO_BOUND._replace(max_jobs=0), {"age": [], "count": ["3", "2", "1", "0"], "bytes": []}),
    ],
)
async def test_the_oldest_of_a_tenants_ended_jobs_give_way(
    database: Database, bounds: Bounds, expected: dict[str, list[str]]
) -> None:
    for number in range(4):
        await put(database, str(number), window=9)
        await end(database, str(number), at_s=200.0 + number, entry=b"x" * 100, row=None)
    await put(database, "theirs", "mallory", window=9)
    await end(database, "theirs", at_s=1.0)
    for name, window in (("given", 9), ("waits", 0)):
        await put(database, name, window=window)
    assert await database.run(retain, "alice", bounds) == expected
    gone = {name for names in expected.values() for name in names}
    left = {job.prompt_id for job in await database.read(listing, None, None, 99)}
    assert left == {"0", "1", "2", "3", "theirs", "given", "waits"} - gone
    assert set((await database.read(changes, 0)).forgotten) == gone
    for name in gone:
        assert await database.read(documents, "alice", "entry", [name], 10**6) == ({}, [])
        with pytest.raises(JobIdTaken):
            await put(database, name, "mallory")


async def test_ids_of_forgotten_jobs_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_upkeep, "MAX_FORGOTTEN", 2)
    for number in range(5):
        await put(database, str(number), window=9)
        await end(database, str(number), at_s=200.0 + number)
        await database.run(retain, "alice", NO_BOUND._replace(max_jobs=0))
    assert (await database.read(changes, 0)).forgotten == ["3", "4"]


async def test_a_wish_is_for_what_has_not_ended(database: Database) -> None:
    await put(database, "1", window=1)
    before = (await database.read(changes, 0)).version
    assert await database.run(wish, "1", "cancel")
    assert [job.wish for job in (await database.read(changes, before)).jobs] == ["cancel"]
    assert (await end(database, "1", StoredState.CANCELED)).wish == ""
    assert not await database.run(wish, "1", "cancel")
    assert not await database.run(wish, "absent", "cancel")


async def test_what_was_wished_away_long_ago_never_came_to_be(database: Database) -> None:
    for name, at_s, text in (
        ("old", 100.0, "unsure"),
        ("new", 200.0, "unsure"),
        ("sure", 100.0, ""),
        ("c", 1.0, "cancel"),
    ):
        await put(database, name, window=9, created_at_s=at_s)
        await database.run(wish, name, text)
    await database.run(drop_wished, "unsure", 150.0)
    found = await database.read(changes, 0)
    assert ({job.prompt_id for job in found.jobs}, found.forgotten) == ({"new", "sure", "c"}, ["old"])


async def test_a_job_that_failed_waits_again_as_if_it_had_not(database: Database) -> None:
    await put(database, "1", window=1)
    await database.run(start, "1", 190.0)
    failed = await end(database, "1", StoredState.FAILED, error="node", failing_class="KSampler")
    again = await database.run(retry, "1")
    assert again is not None
    assert (again.state, again.gate, again.started_at_s, again.ended_at_s) == ("waiting", "", None, None)
    assert (again.gpu_s, again.error, again.failing_class, again.stopped_after_s) == (0.0, "", "", None)
    assert again.attempts == failed.attempts, "what was tried stays told"
    assert again.span == 0.0, "it is paid when it is given again"
    assert again.size == sum(map(len, SUBMITTED))
    assert await database.read(documents, "alice", "entry", ["1"], 10**6) == ({}, [])
    assert await database.read(documents, "alice", "row", ["1"], 10**6) == ({}, [])
    assert await given(database, 1) == ["1"]
    assert await database.read(submitted_of, "1") == SUBMITTED


@pytest.mark.parametrize("state", [StoredState.SUCCEEDED, StoredState.CANCELED, StoredState.WAITING])
async def test_only_what_failed_is_tried_again(database: Database, state: StoredState) -> None:
    await put(database, "1", window=1 if state != StoredState.WAITING else 0)
    if state != StoredState.WAITING:
        await end(database, "1", state)
    before = await known(database, "1")
    assert await database.run(retry, "1") is None
    assert await known(database, "1") == before
    assert await database.run(retry, "absent") is None


async def test_while_it_drains_nothing_is_given_and_all_is_recorded(database: Database) -> None:
    await put(database, "0", window=2)
    await database.run(drain, is_on=True)
    assert (await put(database, "1", window=2)).state == StoredState.WAITING
    assert await given(database, 2) == []
    await database.run(drain, is_on=False)
    assert await given(database, 2) == ["1"]


async def test_jobs_are_listed_the_newest_first(database: Database) -> None:
    for name, tenant in (("1", "alice"), ("2", "mallory"), ("3", "alice")):
        await put(database, name, tenant)
    await given(database, 1)

    async def names(tenant: str | None, state: str | None, limit: int = 9) -> list[str]:
        return [job.prompt_id for job in await database.read(listing, tenant, state, limit)]

    assert await names(None, None) == ["3", "2", "1"]
    assert await names(None, None, 2) == ["3", "2"]
    assert await names("alice", None) == ["3", "1"]
    assert await names("alice", "waiting") == ["3"]
    assert await names(None, "dispatched") == ["1"]

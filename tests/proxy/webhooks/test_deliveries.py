"""The outbox, asked of SQLite and of PostgreSQL: what is written down for whom, who sends it, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy.jobs.job_rows import CANCEL, StoredState
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import adopt, cancel_waiting, finish, forget, give_back
from proxy.jobs.store_upkeep import retry, wish
from proxy.persistence.operations import Database, Operation
from proxy.webhooks.deliveries import (
    DELIVERED,
    SWITCHED_OFF,
    Kept,
    claim,
    endpoint_rows,
    next_due,
    release,
    resend,
    settle,
    switch_off,
    tenants,
    trim,
    waiting_counts,
)
from tests.proxy.jobs.stored import COMFYUI, end, put, row
from tests.proxy.jobs.stored import ended as ending
from tests.proxy.webhooks.stored import GATE, NOW_S, UNTIL_S, configured, ended, endpoint, kept, taken

SHOP = ("shop", "alice")


async def test_each_end_is_written_down_for_each_endpoint_of_its_tenant_that_wants_it(database: Database) -> None:
    rows = (endpoint("all"), endpoint("failures", events="job.failed"), endpoint("theirs", "mallory"))
    await configured(database, *rows)
    await ended(database, "1")
    await ended(database, "2", state=StoredState.FAILED)
    await put(database, "3")
    await database.run(cancel_waiting, "alice", ["3"], 250.0)
    found = {(each.endpoint, each.prompt_id, each.state) for each in await kept(database)}
    assert found == {
        ("all", "1", "succeeded"),
        ("all", "2", "failed"),
        ("failures", "2", "failed"),
        ("all", "3", "canceled"),
    }
    assert len({each.id for each in await kept(database)}) == 4


async def test_without_an_endpoint_nothing_is_written_down(database: Database) -> None:
    await ended(database, "1")
    assert not await kept(database)


async def test_an_end_that_is_told_twice_is_written_down_once(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    await end(database, "1", StoredState.FAILED)
    assert [each.state for each in await kept(database)] == ["succeeded"]


async def test_a_job_that_is_tried_again_ends_twice_and_is_told_twice(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1", state=StoredState.FAILED)
    await database.run(retry, "1")
    await database.run(give, COMFYUI, 100, GATE, 150.0, 1000.0, {})
    await end(database, "1")
    found = await kept(database)
    assert sorted(each.state for each in found) == ["failed", "succeeded"]
    assert len({each.id for each in found}) == 2


async def test_a_job_that_is_given_back_and_unwanted_is_told_as_canceled(database: Database) -> None:
    await configured(database, endpoint())
    await put(database, "1", window=1)
    await database.run(wish, "1", CANCEL)
    await database.run(give_back, "1", 170.0, "not-sent")
    assert [each.state for each in await kept(database)] == ["canceled"]


async def test_of_jobs_that_are_found_ended_those_are_told_that_ended_since_the_endpoint_is_there(
    database: Database,
) -> None:
    """A client may have been answered that its job is taken, and the gate have lost it before it ended; an old history of ComfyUI's is no news."""
    await configured(database, endpoint(since_s=150.0), endpoint("late", since_s=250.0))
    for name in ("1", "1", "2"):
        ended_at_s = {"1": 200.0, "2": 100.0}[name]
        await database.run(adopt, row(name, state=StoredState.FAILED, ended_at_s=ended_at_s))
    await database.run(adopt, row("3", state=StoredState.DISPATCHED))
    assert [(each.endpoint, each.prompt_id) for each in await kept(database)] == [("shop", "1")]


async def test_an_end_that_does_not_come_to_be_is_told_to_nobody(database: Database) -> None:
    await configured(database, endpoint())
    await put(database, "1", window=1)

    def breaks() -> Operation[None]:
        yield from finish("1", ending())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(breaks)
    assert not await kept(database)


async def test_a_deleted_job_leaves_its_id_and_times_in_the_outbox(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    await database.run(forget, "alice", ["1"])
    [found] = await kept(database)
    view = found.bare_view(900.0)
    assert (view.prompt_id, view.status, view.created_at_s, view.ended_at_s) == ("1", "succeeded", 100.0, 200.0)
    assert not found.is_end_of(None)
    assert found.is_end_of(view)


async def test_each_is_taken_once_and_again_when_its_gate_must_be_gone(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    assert [each.prompt_id for each in await taken(database)] == ["1"]
    assert not await taken(database, gate="gate/2")
    assert (await database.read(next_due, [SHOP, ("shop", "mallory")])) == {SHOP: UNTIL_S}
    again = await database.run(claim, "shop", "alice", "gate/2", UNTIL_S, UNTIL_S + 60, 10)
    assert [each.prompt_id for each in again] == ["1"]


async def test_two_gates_never_take_the_same(make_database: Callable[[], Database]) -> None:
    gates = [make_database(), make_database()]
    for each in gates:
        await each.open()
    try:
        await configured(gates[0], endpoint())
        for number in range(20):
            await ended(gates[0], str(number))
        found = await asyncio.gather(
            *(
                gates[number % 2].run(claim, "shop", "alice", f"gate/{number % 2}", NOW_S, UNTIL_S, 3)
                for number in range(10)
            )
        )
        ids = [each.id for part in found for each in part]
        assert len(ids) == len(set(ids)) == 20
    finally:
        for each in gates:
            await each.close()


async def test_an_endpoint_that_was_another_tenants_gets_nothing_of_that_tenants(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    await configured(database, endpoint("shop", "mallory", fingerprint="2"))
    await ended(database, "2", "mallory")
    assert [each.prompt_id for each in await taken(database, "shop", "mallory")] == ["2"]


async def test_what_a_gate_that_has_lost_it_says_counts_where_it_was_delivered(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    [first] = await taken(database)
    await database.run(claim, "shop", "alice", "gate/2", UNTIL_S, UNTIL_S + 60, 10)
    assert not await database.run(settle, first._replace(due_at_s=999.0, note="answered 500"), GATE)
    assert [each.gate for each in await kept(database)] == ["gate/2"]
    assert await database.run(settle, first._replace(due_at_s=None, outcome=DELIVERED), GATE)
    assert await database.read(next_due, [SHOP]) == {}
    assert not await database.run(settle, first._replace(tenant="mallory", outcome=DELIVERED), GATE)


async def test_a_gate_that_stops_or_was_killed_leaves_what_it_sent_to_the_next(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    for gate in (GATE, None):
        assert len(await taken(database)) == 1
        await database.run(release, gate, NOW_S)
    assert len(await taken(database)) == 1
    await database.run(release, "gate/2", NOW_S)
    assert not await taken(database)


async def test_who_wants_no_more_is_told_no_more_until_it_is_another_one(database: Database) -> None:
    await configured(database, endpoint(), endpoint("desk"))
    await ended(database, "1")
    await database.run(switch_off, "shop", "alice", 210.0)
    await ended(database, "2")
    assert {(each.endpoint, each.prompt_id, each.outcome) for each in await kept(database)} == {
        ("shop", "1", SWITCHED_OFF),
        ("desk", "1", ""),
        ("desk", "2", ""),
    }
    await configured(database, endpoint(), endpoint("desk"))
    assert [row.switched_off_s for row in await database.read(endpoint_rows)] == [None, 210.0]
    await configured(database, endpoint(fingerprint="2"))
    assert await database.read(endpoint_rows) == [endpoint(fingerprint="2")]


async def test_what_is_sent_again_begins_anew_and_switches_its_endpoint_on(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1")
    await database.run(switch_off, "shop", "alice", 210.0)
    [off] = await kept(database)
    assert await database.run(resend, ["msg_no"], NOW_S) == []
    [again] = await database.run(resend, [off.id], NOW_S)
    assert (again.due_at_s, again.attempts, again.outcome) == (NOW_S, 0, "")
    assert (await database.read(endpoint_rows))[0].switched_off_s is None


async def test_what_is_kept_is_bounded_by_age_and_count_for_each_tenant(database: Database) -> None:
    await configured(database, endpoint(), endpoint("theirs", "mallory"))
    for number in range(6):
        await ended(database, str(number))
    await ended(database, "9", "mallory")
    for each in (await taken(database))[:3]:
        await database.run(settle, each._replace(due_at_s=None, outcome=DELIVERED), GATE)
    assert await database.read(waiting_counts) == {"alice": 3, "mallory": 1}
    assert await database.run(trim, "alice", Kept(0.0, 0.0, 2)) == 1
    assert len(await kept(database, "alice")) == 4
    assert await database.run(trim, "alice", Kept(0.0, 201.0, 10)) == 0
    assert len(await kept(database, "alice")) == 2
    assert await database.run(trim, "alice", Kept(201.0, 0.0, 10)) == 2
    assert not await kept(database, "alice")
    assert await database.read(tenants) == ["mallory"]

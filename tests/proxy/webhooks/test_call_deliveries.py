"""The outbox of addresses that calls have named, asked of SQLite and of PostgreSQL; and that what is due is found by an index in both."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import JobExtras
from policy.webhooks import CALLS
from proxy.jobs.job_rows import StoredState
from proxy.jobs.outbox import announce
from proxy.jobs.store_giving import give
from proxy.jobs.store_operations import adopt, cancel_waiting, forget
from proxy.jobs.store_upkeep import retry
from proxy.persistence.operations import Database, Operation, Statement
from proxy.webhooks.deliveries import SWITCHED_OFF, claim, next_due, settle, switch_off
from tests.proxy.jobs.stored import COMFYUI, SUBMITTED, end, put, row
from tests.proxy.webhooks.stored import GATE, NOW_S, UNTIL_S, configured, ended, endpoint, kept, taken

URL, OTHER = "https://hooks.example.com/a?token=x", "https://other.example.com/"


async def test_the_end_of_a_job_is_written_down_for_the_address_that_its_call_has_named(database: Database) -> None:
    await ended(database, "1", webhook=URL)
    await ended(database, "2")
    await ended(database, "3", "mallory", StoredState.FAILED, OTHER)
    await put(database, "4", extras=JobExtras(webhook=URL))
    await database.run(cancel_waiting, "alice", ["4"], 250.0)
    found = {(each.endpoint, each.tenant, each.prompt_id, each.state, each.url) for each in await kept(database)}
    assert found == {
        (CALLS, "alice", "1", "succeeded", URL),
        (CALLS, "mallory", "3", "failed", OTHER),
        (CALLS, "alice", "4", "canceled", URL),
    }


async def test_beside_endpoints_of_the_configuration(database: Database) -> None:
    await configured(database, endpoint())
    await ended(database, "1", webhook=URL)
    found = await kept(database)
    assert sorted((each.endpoint, each.url) for each in found) == [(CALLS, URL), ("shop", "")]
    assert len({each.id for each in found}) == 2


async def test_each_is_taken_for_its_own_tenant_alone(database: Database) -> None:
    await ended(database, "1", webhook=URL)
    await ended(database, "2", "mallory", webhook=OTHER)
    assert [each.url for each in await taken(database, CALLS, "mallory")] == [OTHER]
    assert await database.read(next_due, [(CALLS, "alice")]) == {(CALLS, "alice"): 100.0}
    assert [each.url for each in await taken(database, CALLS)] == [URL]
    assert not await taken(database, CALLS, gate="gate/2")


async def test_a_job_that_is_tried_again_is_told_of_twice(database: Database) -> None:
    await ended(database, "1", state=StoredState.FAILED, webhook=URL)
    await database.run(retry, "1")
    await database.run(give, COMFYUI, 100, GATE, 150.0, 1000.0, {})
    await end(database, "1")
    assert sorted(each.state for each in await kept(database)) == ["failed", "succeeded"]


async def test_a_job_that_is_found_ended_is_told_of_whenever_that_was(database: Database) -> None:
    """Its client was told that it is taken, and its call has named who is to be told."""
    job = row("1", state=StoredState.FAILED, ended_at_s=100.0)
    await database.run(adopt, job, SUBMITTED, None, None, JobExtras(webhook=URL))
    assert [(each.endpoint, each.url) for each in await kept(database)] == [(CALLS, URL)]


async def test_of_a_deleted_job_what_was_to_be_told_is_told_and_nothing_else_stays(database: Database) -> None:
    await ended(database, "1", webhook=URL)
    await put(database, "2", extras=JobExtras(webhook=URL))
    await database.run(forget, "alice", ["1", "2"])
    assert [each.url for each in await taken(database, CALLS)] == [URL]

    def left() -> Operation[Any]:
        return (yield Statement("SELECT * FROM job_webhooks"))

    assert await database.read(left) == []


async def test_one_that_wants_no_more_is_no_word_for_the_others(database: Database) -> None:
    await ended(database, "1", webhook=URL)
    await ended(database, "2", webhook=OTHER)
    first = (await taken(database, CALLS))[0]
    await database.run(settle, first._replace(due_at_s=None, outcome=SWITCHED_OFF), GATE)
    await ended(database, "3", webhook=first.url)
    assert len([each for each in await kept(database) if each.due_at_s is not None]) == 2


async def _filled(database: Database) -> None:
    """An outbox with many that wait, for many endpoints and tenants."""

    def fill() -> Operation[None]:
        for number in range(4000):
            yield Statement(
                "INSERT INTO webhook_deliveries VALUES (?, ?, ?, ?, 'failed', 1.0, NULL, 2.0, ?, '', 0, '', NULL, '', '', '', NULL)",
                (f"msg_{number}", f"e{number % 20}", f"t{number % 40}", "job", float(number)),
            )
        for number in range(400):
            yield Statement(
                "INSERT INTO job_webhooks VALUES (?, ?, ?)", (f"job-{number}", f"t{number % 40}", "https://a.test/")
            )

    await database.run(fill)

    def analyse() -> Operation[None]:
        yield Statement("ANALYZE")

    await database.run(analyse)


@pytest.mark.parametrize("name", ["next_due", "claim", "switch_off", "announce"])
async def test_what_is_due_is_found_by_an_index(database: Database, name: str) -> None:
    """However much waits for others: SQLite and PostgreSQL read the rows of one recipient, and of those the first ones."""
    await _filled(database)
    operations: dict[str, Operation[Any]] = {
        "next_due": next_due([("e1", "t1"), ("e2", "t2")]),
        "claim": claim("e1", "t1", GATE, NOW_S, UNTIL_S, 2),
        "switch_off": _second(switch_off("e1", "t1", NOW_S)),
        "announce": _second(announce(row("job-7", "t7", state=StoredState.FAILED, ended_at_s=1.0))),
    }
    statement = next(operations[name])
    is_sqlite = database.place.endswith("sqlite3")
    words = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"

    def explain() -> Operation[list[str]]:
        rows = yield Statement(f"{words} {statement.sql}", statement.parameters)
        return [str(each[-1]) for each in rows]

    plan = await database.run(explain)
    # "next" is the one row that was found.
    assert not [line for line in plan if line.startswith("SCAN") and line != "SCAN next" and is_sqlite], plan
    assert not [line for line in plan if "Seq Scan" in line], plan
    index = "job_webhooks" if name == "announce" else "webhook_deliveries_by_due"
    assert any(index in line for line in plan), plan


async def test_of_many_recipients_each_is_found(database: Database) -> None:
    await _filled(database)
    asked = [(f"e{number % 20}", f"t{number}") for number in range(250)]
    found = await database.read(next_due, asked)
    assert found == {(f"e{number % 20}", f"t{number}"): float(number) for number in range(40)}


def _second(operation: Operation[Any]) -> Operation[Any]:
    """From its second statement on."""
    next(operation)
    first = operation.send([])

    def rest() -> Operation[Any]:
        yield first

    return rest()

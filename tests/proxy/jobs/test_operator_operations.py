"""What the operator does with jobs in the database. tests/commands/test_jobs.py does it beside a gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.jobs import operator_operations as operator
from proxy.jobs import store_giving
from proxy.jobs import store_operations as store
from proxy.jobs import store_reading as reading
from proxy.jobs import store_upkeep as upkeep
from proxy.jobs.job_rows import CANCEL, Ended, JobRow, StoredState, Submitted
from proxy.persistence.operations import Database
from proxy.persistence.sqlite_file import STATE_FILE
from tests.proxy.conftest import opened

WINDOW = 2
COMFYUI = "default"
SUBMITTED = Submitted(b"{}", b"[]", b'["1"]')


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / STATE_FILE) as database:
        yield database


def job(prompt_id: str, tenant: str = "alice") -> JobRow:
    attempt = '[{"at": 1.0, "comfyui": "default"}]'
    return JobRow(prompt_id, tenant, created_at_s=1.0, comfyui=COMFYUI, gate="g", lease_until_s=9.0, attempts=attempt)


async def give(database: Database) -> list[str]:
    given = await database.run(store_giving.give, COMFYUI, WINDOW, "g", 2.0, 12.0, {})
    return [each.job.prompt_id for each in given]


async def fail(database: Database, prompt_id: str) -> None:
    await database.run(store.finish, prompt_id, Ended(StoredState.FAILED, 3.0, error="node", entry=b"{}", row=b"{}"))


async def test_while_it_is_drained_comfyui_is_given_nothing(database: Database) -> None:
    await database.run(store.add_next, job("a"), SUBMITTED, WINDOW, 1.0)
    await database.run(upkeep.drain, is_on=True)
    assert await database.run(store.add_next, job("b"), SUBMITTED, WINDOW, 1.0) is None
    waiting = await database.run(store.add_waiting, job("b"), SUBMITTED)
    assert (waiting.state, waiting.attempts) == (StoredState.WAITING, "[]")
    assert await give(database) == []
    found = await database.read(operator.load)
    assert (found.is_draining, [each.prompt_id for each in found.given], found.waiting) == (True, ["a"], 1)

    await database.run(upkeep.drain, is_on=False)
    assert not await database.read(operator.is_draining)
    assert await give(database) == ["b"]


async def test_one_of_several_is_drained(database: Database) -> None:
    await database.run(store.add_next, job("old")._replace(comfyui="a-former-name"), SUBMITTED, WINDOW, 1.0)
    await database.run(store.add_next, job("a"), SUBMITTED, WINDOW, 1.0, has_others=True)
    await database.run(store.add_next, job("b")._replace(comfyui="gpu-2"), SUBMITTED, WINDOW, 1.0, has_others=True)
    await database.run(upkeep.drain_one, COMFYUI, is_on=True)

    first = job("c")
    assert await database.run(store.add_next, first, SUBMITTED, WINDOW, 1.0, has_others=True) is None
    found = await database.read(operator.load)
    assert not found.is_draining
    assert found.drained == {COMFYUI}
    names = (COMFYUI, "gpu-2", "gpu-3")
    given = {name: [each.prompt_id for each in found.of(name, names).given] for name in names}
    assert given == {COMFYUI: ["a", "old"], "gpu-2": ["b"], "gpu-3": []}
    assert [await database.read(operator.is_draining, name) for name in ("", COMFYUI, "gpu-2")] == [False, True, False]

    # The one that is alone is not asked for its name.
    assert await database.run(store.add_next, first, SUBMITTED, WINDOW, 1.0) is not None
    await database.run(upkeep.drain_one, COMFYUI, is_on=False)
    assert (await database.read(operator.load)).drained == set()


async def test_a_failed_job_waits_again_as_it_was_submitted(database: Database) -> None:
    await database.run(store.add_next, job("a"), SUBMITTED, WINDOW, 1.0)
    assert await database.run(upkeep.retry, "a") is None
    await fail(database, "a")
    again = await database.run(upkeep.retry, "a")
    assert again is not None
    assert (again.state, again.error, again.ended_at_s, again.size) == (
        StoredState.WAITING,
        "",
        None,
        sum(map(len, SUBMITTED)),
    )
    assert [each["reason"] for each in again.told_attempts()] == ["node"]
    assert await database.read(reading.documents, "alice", "entry", ["a"], 100) == ({}, [])
    assert await give(database) == ["a"]


async def test_what_was_submitted_may_be_gone(database: Database) -> None:
    await database.run(store.adopt, job("a")._replace(state=StoredState.RUNNING))
    await fail(database, "a")
    assert await database.run(upkeep.retry, "a") is None
    assert await database.run(upkeep.retry, "unknown") is None


async def test_an_adopted_job_has_its_turn_when_it_has_to_wait(database: Database) -> None:
    """Its tenant has had no other job."""
    await database.run(store.adopt, job("a", "bob")._replace(state=StoredState.DISPATCHED), SUBMITTED)
    await database.run(store.give_back, "a", 2.0, "comfyui-gone")
    assert await give(database) == ["a"]


async def test_a_job_that_is_to_be_canceled_does_not_wait_again(database: Database) -> None:
    await database.run(store.add_next, job("a"), SUBMITTED, WINDOW, 1.0)
    await database.run(upkeep.wish, "a", CANCEL)
    ended = await database.run(store.give_back, "a", 2.0, "comfyui-gone")
    assert ended is not None
    assert (ended.state, ended.ended_at_s, ended.size) == (StoredState.CANCELED, 2.0, 0)
    assert await give(database) == []


async def test_the_newest_are_listed_first(database: Database) -> None:
    for prompt_id, tenant in (("a", "alice"), ("b", "bob"), ("c", "alice")):
        if await database.run(store.add_next, job(prompt_id, tenant), SUBMITTED, WINDOW, 1.0) is None:
            await database.run(store.add_waiting, job(prompt_id, tenant), SUBMITTED)

    async def listed(tenant: str | None, state: str | None, limit: int = 10) -> list[str]:
        return [each.prompt_id for each in await database.read(reading.listing, tenant, state, limit)]

    assert await listed(None, None) == ["c", "b", "a"]
    assert await listed("alice", None) == ["c", "a"]
    assert await listed(None, "waiting") == ["c"]
    assert await listed("bob", "waiting") == []
    assert await listed(None, None, 1) == ["c"]

"""What jobs made and how they failed, kept by SQLite and by PostgreSQL: once, of a job that has ended and is the tenant's."""

from __future__ import annotations

import pytest

from proxy.jobs.job_rows import StoredState
from proxy.jobs.store_upkeep import retry
from proxy.persistence.operations import Database
from tests.policy.tenants import uuid_of
from tests.proxy.jobs.stored import end, put
from tests.proxy.v2.stored import (
    ENDS,
    FAILURE,
    everything,
    keep,
    made,
    read,
)


@pytest.mark.parametrize("state", ENDS)
async def test_a_job_that_has_ended_has_what_it_made(database: Database, state: StoredState) -> None:
    await put(database, "1", window=1)
    await end(database, "1", state)
    assert not (await read(database, "1")).is_measured
    outputs = [made(3, "1"), made(1, "1", folder=None, path="", kind="text"), made(2, "1", hash="blake3:00")]
    assert await keep(database, "1", "alice", outputs, FAILURE)
    found = await read(database, "1")
    assert (found.outputs, found.failure, found.is_measured) == (outputs, FAILURE, True)
    assert found.row.state == state


async def test_that_nothing_was_made_and_nothing_failed_is_known_too(database: Database) -> None:
    await put(database, "1", window=1)
    await end(database, "1")
    assert await keep(database, "1", "alice", [], None)
    found = await read(database, "1")
    assert (found.outputs, found.failure, found.is_measured) == ([], None, True)


async def test_a_second_measure_changes_nothing(database: Database) -> None:
    """Two readers measure at the same time."""
    await put(database, "1", window=1)
    await end(database, "1")
    assert await keep(database, "1", "alice", [made(1, "1"), made(2, "1")], None)
    assert await keep(database, "1", "alice", [made(1, "1"), made(2, "1")], FAILURE)
    found = await read(database, "1")
    assert [each.asset_id for each in found.outputs] == [uuid_of(1), uuid_of(2)]
    assert found.failure is None


async def test_what_an_earlier_run_made_is_not_kept_of_a_job_that_runs_again(database: Database) -> None:
    """The operator has it tried once more while its outputs are measured."""
    await put(database, "1", window=1)
    await end(database, "1", StoredState.FAILED)
    assert await database.run(retry, "1") is not None
    assert not await keep(database, "1", "alice", [made(1, "1")], FAILURE)
    assert await database.read(everything) == []
    await end(database, "1")
    assert not (await read(database, "1")).is_measured


async def test_an_id_of_an_asset_is_one_assets(database: Database) -> None:
    """Whatever a second one says: the first one stays, and another tenant's job gets none of it."""
    await put(database, "1", window=2)
    await put(database, "2", "mallory", window=2)
    for name in ("1", "2"):
        await end(database, name)
    assert await keep(database, "1", "alice", [made(1, "1")], None)
    assert await keep(database, "2", "mallory", [made(1, "2", path="canary")], None)
    assert (await read(database, "1")).outputs == [made(1, "1")]
    assert (await read(database, "2", "mallory")).outputs == []

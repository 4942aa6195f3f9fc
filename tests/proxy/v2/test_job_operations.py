"""Jobs as the API tells of them, asked of SQLite and of PostgreSQL: whose they are, in which order, and what each made."""

from __future__ import annotations

from typing import Any

import pytest

from policy.call import JobExtras
from proxy.jobs.doubts import UNSURE
from proxy.jobs.job_rows import Bounds, StoredState
from proxy.jobs.store_operations import (
    AssetGone,
    JobIdTaken,
    add_next,
    add_waiting,
    adopt,
    cancel_waiting,
    forget,
    give_back,
)
from proxy.jobs.store_reading import find
from proxy.jobs.store_upkeep import retain, retry, wish
from proxy.persistence.operations import ConstraintViolated, Database, Operation, Statement
from proxy.v2.asset_rows import ASSET_COLUMNS, ASSET_PLACES, row_of
from proxy.v2.job_operations import read_job
from tests.policy.tenants import uuid_of
from tests.policy.v2.examples import upload
from tests.proxy.jobs.stored import SUBMITTED, end, put, row
from tests.proxy.v2.stored import (
    FAILURE,
    everything,
    keep,
    labelled,
    listed,
    made,
    read,
    run_one,
    while_there,
)


async def test_a_job_that_waits_is_there_with_its_labels(database: Database) -> None:
    await labelled(database, "1", client="acme", run="7")
    found = await read(database, "1")
    assert found.row == await database.read(find, "1")
    assert (found.labels, found.outputs, found.failure, found.is_measured) == (
        {"client": "acme", "run": "7"},
        [],
        None,
        False,
    )


async def test_what_is_anothers_and_what_is_nowhere_are_not_there(database: Database) -> None:
    await labelled(database, "1", canary="alice")
    await end(database, "1")
    assert await keep(database, "1", "alice", [made(1, "1")], None)
    for tenant, name in (("mallory", "1"), ("alice", "2"), ("", "1"), ("alice", ""), ("ALICE", "1")):
        assert await database.read(read_job, tenant, name) is None
        assert not await keep(database, name, tenant, [made(2, name)], None)
    assert [each.asset_id for each in (await read(database, "1")).outputs] == [uuid_of(1)]


async def test_a_job_that_nobody_was_told_of_is_not_there(database: Database) -> None:
    await put(database, "1", window=1)
    await database.run(wish, "1", UNSURE)
    assert await database.read(read_job, "alice", "1") is None
    assert await listed(database) == []


async def test_a_job_that_was_forgotten_is_not_there(database: Database) -> None:
    await labelled(database, "1")
    await database.run(forget, "mallory", ["1"])
    assert await database.read(read_job, "alice", "1") is not None
    await database.run(forget, "alice", ["1"])
    assert await database.read(read_job, "alice", "1") is None
    assert not await keep(database, "1", "alice", [made(1, "1")], None)
    assert await database.read(everything) == []


async def test_a_job_that_does_not_come_to_be_leaves_nothing_beside_it(database: Database) -> None:
    """Labels and assets are recorded with the job, or not at all."""
    extras = JobExtras({"a": "b"}, ("asset",))
    assert await database.run(while_there, ("asset",), add_next(row("1"), SUBMITTED, 0, 1.0, extras)) is None
    await labelled(database, "2", "mallory", a="c")
    with pytest.raises(JobIdTaken):
        await database.run(add_waiting, row("2"), SUBMITTED, extras)
    twice = ("asset", "asset")
    with pytest.raises(ConstraintViolated):
        await database.run(while_there, twice, add_waiting(row("3"), SUBMITTED, JobExtras({"a": "b"}, twice)))
    with pytest.raises(AssetGone):
        await database.run(add_next, row("4"), SUBMITTED, 1, 1.0, extras)
    with pytest.raises(AssetGone):
        await database.run(while_there, ("asset",), add_waiting(row("4"), SUBMITTED, extras), "mallory")
    assert await database.read(find, "3") is None
    assert sorted(await database.read(everything)) == [("2", "asset-of-2"), ("2", "mallory", "a", "c")]


@pytest.mark.parametrize("way", ["next", "waiting", "there"])
async def test_labels_are_recorded_whichever_way_a_job_comes(database: Database, way: str) -> None:
    used = ("asset",)
    extras = JobExtras({"a": "b"}, used)
    if way == "next":
        assert await database.run(while_there, used, add_next(row("1"), SUBMITTED, 1, 1.0, extras)) is not None
    elif way == "waiting":
        await database.run(while_there, used, add_waiting(row("1"), SUBMITTED, extras))
    else:
        there = row("1", state=StoredState.DISPATCHED)
        assert await database.run(adopt, there, SUBMITTED, None, None, extras) is not None
    assert (await read(database, "1")).labels == {"a": "b"}
    assert ("1", "asset") in await database.read(everything, ("job_assets",))


async def test_labels_are_the_jobs_as_long_as_it_is_there(database: Database) -> None:
    await labelled(database, "1", a="b")
    await run_one(database, "1")
    await database.run(give_back, "1", 170.0, "comfyui-gone")
    assert (await read(database, "1")).labels == {"a": "b"}
    await database.run(cancel_waiting, "alice", ["1"], 180.0)
    found = await read(database, "1")
    assert (found.row.state, found.labels) == (StoredState.CANCELED, {"a": "b"})
    assert await listed(database, labels={"a": "b"}) == ["1"], "canceled before it began, and told all the same"


async def test_an_id_that_comes_again_has_nothing_of_the_old_job(database: Database) -> None:
    """Its tenant deletes a job, and submits another one of this id."""
    await labelled(database, "1", old="label")
    await end(database, "1")
    assert await keep(database, "1", "alice", [made(1, "1")], None)
    await database.run(forget, "alice", ["1"])
    await database.run(add_waiting, row("1"), SUBMITTED, JobExtras({"new": "label"}))
    found = await read(database, "1")
    assert (found.labels, found.outputs, found.is_measured) == ({"new": "label"}, [], False)


async def ended_with_results(database: Database, name: str, state: StoredState, number: int, **more: Any) -> None:
    await labelled(database, name, of=name)
    await end(database, name, state, **more)
    assert await keep(database, name, "alice", [made(number, name)], FAILURE)


async def test_what_is_kept_no_longer_leaves_nothing_behind(database: Database) -> None:
    await ended_with_results(database, "old", StoredState.SUCCEEDED, 1, at_s=200.0)
    await ended_with_results(database, "new", StoredState.FAILED, 2, at_s=300.0)
    await database.run(retain, "alice", Bounds(250.0, 100, 10**9))
    assert await database.read(read_job, "alice", "old") is None
    rest = await database.read(everything)
    assert len(rest) == 3
    assert all("new" in found for found in rest)
    await database.run(retain, "alice", Bounds(250.0, 0, 10**9))
    assert await database.read(everything) == []


async def test_a_job_that_is_tried_again_keeps_its_labels_and_loses_its_results(database: Database) -> None:
    """Only its own: an upload is of no job."""
    await ended_with_results(database, "1", StoredState.FAILED, 1)
    await ended_with_results(database, "2", StoredState.FAILED, 2)
    assert await database.run(retry, "1") is not None
    found = await read(database, "1")
    assert (found.row.state, found.labels, found.outputs) == (StoredState.WAITING, {"of": "1"}, [])
    assert ("1", "asset-of-1") in await database.read(everything, ("job_assets",)), "its workflow uses it still"
    assert [each.asset_id for each in (await read(database, "2")).outputs] == [uuid_of(2)]


async def test_uploads_are_of_no_job_and_go_with_none(database: Database) -> None:
    def put_upload() -> Operation[None]:
        yield Statement(f"INSERT INTO assets ({ASSET_COLUMNS}) VALUES ({ASSET_PLACES})", row_of(upload(9), "alice"))

    await database.run(put_upload)
    await ended_with_results(database, "1", StoredState.FAILED, 1)
    await database.run(retry, "1")
    await database.run(forget, "alice", ["1", ""])
    await database.run(retain, "alice", Bounds(1e9, 0, 0))
    assert [found[0] for found in await database.read(everything)] == [uuid_of(9)]

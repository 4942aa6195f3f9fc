"""Who is told of what becomes of copies, in the gate's database, in each of the two that it may be: once, and in the transaction that changes it."""

from __future__ import annotations

from typing import Any

import pytest

from policy.copies import CopyState
from proxy.copies import copy_operations as records
from proxy.copies.copy_operations import Kept, Split
from proxy.jobs.copy_news import disown
from proxy.jobs.copy_requests import Copy
from proxy.jobs.job_rows import Bounds, StoredState
from proxy.jobs.store_operations import forget
from proxy.jobs.store_upkeep import retain, retry
from proxy.persistence.operations import Database
from proxy.webhooks.deliveries import Delivery, switch_off
from tests.proxy.copies.test_copy_operations import copy, everything
from tests.proxy.copies.test_copy_operations import kept as add
from tests.proxy.jobs.stored import end, put
from tests.proxy.webhooks.stored import configured, endpoint, kept

STORAGE = "job.stored job.storage_failed"
GATE = "gate/1"


async def prepared(database: Database, *copies: Copy, state: StoredState = StoredState.SUCCEEDED) -> None:
    """A job that ended at 200, with these copies, each of them being made."""
    await configured(database, endpoint(events=STORAGE))
    await put(database, "a-job", window=9)
    await end(database, "a-job", state)
    await add(database, *(each._replace(gate=GATE, ended_at_s=200.0) for each in copies))


async def became(database: Database, name: str, state: str, at_s: float = 250.0) -> None:
    was = (await everything(database))[name]._replace(gate=GATE)
    now = was._replace(
        state=state, gate="", due_at_s=None, tried_at_s=at_s, copied_at_s=at_s if state == "copied" else None
    )
    assert await database.run(records.settle, now, was)


async def told(database: Database) -> list[tuple[str, float | None]]:
    return sorted((each.told.value, each.event_at_s) for each in await kept(database) if each.event)


async def test_when_the_last_copy_is_made_it_is_told_once(database: Database) -> None:
    await prepared(database, copy("a"), copy("b"), copy("f", form="webp-80"))
    await became(database, "a", CopyState.COPIED, 240.0)
    await became(database, "f", CopyState.COPIED, 260.0)
    assert await told(database) == []
    await became(database, "b", CopyState.COPIED, 250.0)
    assert await told(database) == [("job.stored", 260.0)]
    [delivery] = await kept(database)
    assert (delivery.prompt_id, delivery.state, delivery.ended_at_s) == ("a-job", "succeeded", 200.0)
    assert (delivery.due_at_s or 0.0) <= 200.0, "at once"
    await add(database, copy("again", gate=GATE, ended_at_s=200.0))
    await became(database, "again", CopyState.COPIED)
    assert await kept(database) == [delivery]


async def test_the_first_copy_that_has_failed_is_told_and_what_is_there_after_all_too(database: Database) -> None:
    await prepared(database, copy("a"), copy("b"))
    await became(database, "a", CopyState.FAILED)
    assert await told(database) == [("job.storage_failed", 250.0)]
    await became(database, "b", CopyState.COPIED)
    assert len(await told(database)) == 1
    await database.run(records.resend, ["a"], 300.0)
    claimed = await database.run(records.claim, "alice", GATE, 300.0, 360.0)
    assert claimed is not None
    await became(database, "a", CopyState.COPIED, 310.0)
    assert await told(database) == [("job.storage_failed", 250.0), ("job.stored", 310.0)]
    assert len({each.id for each in await kept(database)}) == 2


async def test_an_attempt_that_is_followed_by_another_is_not_told(database: Database) -> None:
    await prepared(database, copy("a"))
    await became(database, "a", CopyState.WAITING)
    assert await told(database) == []


async def test_what_is_wiped_or_deleted_later_is_not_told(database: Database) -> None:
    await prepared(database, copy("a", state=CopyState.COPIED, copied_at_s=210.0))
    await became(database, "a", CopyState.WIPED)
    await database.run(disown, "alice", "output", "a.png", "1-2")
    assert await told(database) == []


@pytest.mark.parametrize(
    ("state", "news"), [(StoredState.SUCCEEDED, [("job.stored", 200.0)]), (StoredState.FAILED, [])]
)
async def test_a_job_that_left_no_file_is_stored_where_it_succeeded(
    database: Database, state: StoredState, news: list[tuple[str, float]]
) -> None:
    await prepared(database, copy("whole", asset_id=""), state=state)
    whole = (await everything(database))["whole"]
    assert await database.run(records.split, whole, []) is Split.FOUND
    assert await told(database) == news


async def test_of_a_job_that_is_gone_before_its_files_are_known_nobody_is_told(database: Database) -> None:
    await prepared(database, copy("whole", asset_id=""))
    whole = (await everything(database))["whole"]
    await database.run(forget, "alice", ["a-job"])
    assert await database.run(records.split, whole, []) is Split.LOST
    assert await told(database) == []


async def test_what_a_job_made_that_leaves_the_history_before_it_is_looked_up_has_failed(database: Database) -> None:
    """Nobody waits for `job.stored` for ever, where it is not the tenant that has deleted the job."""
    await prepared(database, copy("whole", asset_id=""), copy("of-another", "mallory", asset_id=""))
    assert await database.run(retain, "alice", Bounds(1e9, 1, 1)) == {"age": ["a-job"], "count": [], "bytes": []}
    assert await told(database) == [("job.storage_failed", 200.0)]
    whole = (await everything(database))["whole"]
    assert await database.run(records.split, whole, []) is Split.LOST
    assert len(await kept(database)) == 1


@pytest.mark.parametrize("state", [CopyState.COPIED, CopyState.WIPED])
async def test_of_what_is_copied_nobody_is_told_when_its_job_leaves_the_history(
    database: Database, state: CopyState
) -> None:
    await prepared(database, copy("a", state=state, copied_at_s=210.0))
    await database.run(retain, "alice", Bounds(1e9, 1, 1))
    assert await told(database) == []


async def test_files_that_are_found_are_waited_for(database: Database) -> None:
    await prepared(database, copy("whole", asset_id=""))
    whole = (await everything(database))["whole"]
    assert Split.FOUND is await database.run(records.split, whole, [copy("a", ended_at_s=200.0)])
    assert await told(database) == []


async def test_what_is_deleted_before_it_is_copied_is_not_waited_for(database: Database) -> None:
    await prepared(database, copy("a"), copy("b"))
    await became(database, "a", CopyState.COPIED)
    await database.run(disown, "alice", "output", "b.png", "1-2")
    assert await told(database) == [("job.stored", 250.0)]


async def test_where_everything_is_deleted_nothing_is_told(database: Database) -> None:
    await prepared(database, copy("a"))
    await database.run(disown, "alice", "output", "a.png", "1-2")
    assert await told(database) == []


async def test_copies_that_are_given_up_because_there_are_too_many_are_told(database: Database) -> None:
    await prepared(database, *(copy(f"c{number}") for number in range(5)))
    assert await database.run(records.trim, "alice", Kept(0.0, 3)) == 2
    assert await told(database) == [("job.storage_failed", 200.0)]


async def test_nobody_is_told_who_does_not_want_it_or_is_another_tenants(database: Database) -> None:
    await prepared(database, copy("a"), copy("b"))
    await configured(
        database,
        endpoint("ends"),
        endpoint("failures", events="job.storage_failed"),
        endpoint("theirs", "mallory", events=STORAGE),
        endpoint("off", events=STORAGE),
        endpoint("mine", events=f"job.canceled {STORAGE}"),
    )
    await database.run(switch_off, "off", "alice", 100.0)
    await became(database, "a", CopyState.COPIED)
    await became(database, "b", CopyState.COPIED)
    assert [each.endpoint for each in await kept(database) if each.event] == ["mine"]


async def test_of_a_job_that_is_deleted_or_was_tried_again_nothing_is_told(database: Database) -> None:
    await prepared(database, copy("a"), copy("b", prompt_id="failed"))
    await database.run(forget, "alice", ["a-job"])
    await became(database, "a", CopyState.COPIED)
    await put(database, "failed", window=9)
    await end(database, "failed", StoredState.FAILED)
    assert await database.run(retry, "failed") is not None
    await became(database, "b", CopyState.COPIED)
    assert [each for each in await kept(database) if each.event] == []


async def test_neighbours_with_jobs_of_one_id_are_told_of_their_own(database: Database) -> None:
    other: dict[str, Any] = {"gate": GATE, "ended_at_s": 200.0}
    await prepared(database, copy("a"))
    await add(database, copy("m", "mallory", **other))
    await became(database, "m", CopyState.COPIED)
    assert await told(database) == []
    await became(database, "a", CopyState.COPIED)
    assert [each.tenant for each in await kept(database)] == ["alice"]


def test_an_end_and_what_comes_after_it_are_told_apart() -> None:
    ended = Delivery("msg_1", "shop", "alice", "a-job", "failed", 1.0, None, 2.0)
    assert ended.told.value == "job.failed"
    assert ended._replace(event="job.stored").told.value == "job.stored"

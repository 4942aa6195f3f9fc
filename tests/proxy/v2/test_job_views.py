"""Jobs as the API tells of them, from what stands in a database: status, place, times, and where a page goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.v2.effects import After, ListJobs
from policy.v2.jobs import JobError, Status
from policy.v2.progress import Progress
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_operations import cancel_waiting, give_back, start
from proxy.jobs.store_reading import changes
from proxy.jobs.store_upkeep import wish
from proxy.persistence.sqlite import SqliteDatabase
from proxy.v2.failures import error_of, failure_of
from proxy.v2.job_status import status_of
from proxy.v2.job_views import JobViews
from tests.policy.tenants import uuid_of
from tests.proxy.conftest import opened
from tests.proxy.jobs.stored import end, put, row
from tests.proxy.v2.stored import FAILURE, keep, made

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
HISTORY_S = 5000.0
PROGRESS = Progress(0.5, 1, 2)
LOST = JobError("lost", "Gone.")


class Followed:
    """Knows as much of every job."""

    async def look_at(self, tenant: TenantId, prompt_id: str) -> tuple[Progress | None, tuple[Asset, ...]]:
        return PROGRESS, (made(1, prompt_id),)


class Measured:
    """asked: the jobs that were measured."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def measure(self, tenant: TenantId, row: JobRow) -> tuple[tuple[Asset, ...], JobError | None]:
        self.asked.append(row.prompt_id)
        return (made(2, row.prompt_id),), LOST


class Shown:
    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.registry = JobRegistry()
        self.results = Measured()
        self.views = JobViews(database, self.registry, Followed(), self.results, lambda: HISTORY_S)

    async def learn(self) -> None:
        """What stands in the database, as a gate knows it when it starts."""
        for each in sorted((await self.database.read(changes, 0)).jobs, key=lambda found: found.sequence):
            self.registry.apply(each)


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with opened(tmp_path / "jobs.sqlite3") as database:
        yield Shown(database)


WITHOUT_WISH = {
    "waiting": Status.QUEUED,
    "dispatched": Status.QUEUED,
    "running": Status.RUNNING,
    "succeeded": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "canceled": Status.CANCELED,
}
UNWANTED = WITHOUT_WISH | {"dispatched": Status.CANCELING, "running": Status.CANCELING}


@pytest.mark.parametrize("state", StoredState)
def test_a_state_is_a_word_of_the_contract(state: StoredState) -> None:
    assert status_of(row("1", state=state)) is WITHOUT_WISH[state]
    assert status_of(row("1", state=state, wish=CANCEL)) is UNWANTED[state]


@pytest.mark.parametrize("error", [None, LOST, JobError("node_execution_error", "It broke.", "3", "KSampler")])
def test_a_failure_is_read_as_it_was_written(error: JobError | None) -> None:
    assert error_of(failure_of(error)) == error


async def test_the_place_is_among_ones_own_that_wait(shown: Shown) -> None:
    for name, tenant in (("done", ALICE), ("runs", ALICE), ("foreign", MALLORY), ("next", ALICE)):
        await put(shown.database, name, tenant, window=10)
    await end(shown.database, "done")
    await shown.database.run(start, "runs", 160.0)
    for name, tenant in (("a", ALICE), ("m", MALLORY), ("b", ALICE)):
        await put(shown.database, name, tenant)
    await shown.learn()
    places = {}
    for name in ("done", "runs", "next", "a", "b"):
        found = await shown.views.find(ALICE, name)
        assert found is not None
        places[name] = found.queue_position
    assert places == {"done": None, "runs": None, "next": 1, "a": 2, "b": 3}
    foreign = await shown.views.find(MALLORY, "foreign")
    assert foreign is not None
    assert foreign.queue_position == 1, "SECURITY: nobody learns how many of a neighbour's wait"


async def test_what_waits_has_no_progress_and_what_runs_has(shown: Shown) -> None:
    for name in ("runs", "waits"):
        await put(shown.database, name, window=10)
    await shown.database.run(start, "runs", 160.0)
    await shown.learn()
    runs, waits = await shown.views.find(ALICE, "runs"), await shown.views.find(ALICE, "waits")
    assert runs is not None
    assert waits is not None
    assert (runs.progress, [each.asset_id for each in runs.outputs]) == (PROGRESS, [uuid_of(1)])
    assert waits.progress is None
    assert (runs.started_at_s, runs.ended_at_s) == (160.0, None)


@pytest.mark.parametrize("state", [StoredState.SUCCEEDED, StoredState.FAILED])
async def test_what_a_job_made_is_measured_until_it_is_kept(shown: Shown, state: StoredState) -> None:
    await put(shown.database, "1", window=1)
    await end(shown.database, "1", state)
    for _ in range(2):
        found = await shown.views.find(ALICE, "1")
        assert found is not None
        assert ([each.asset_id for each in found.outputs], found.error) == ([uuid_of(2)], LOST)
    assert await keep(shown.database, "1", ALICE, [made(3, "1")], FAILURE)
    found = await shown.views.find(ALICE, "1")
    assert found is not None
    assert [each.asset_id for each in found.outputs] == [uuid_of(3)]
    assert found.error == JobError("node_execution_error", "It broke.", "3", "KSampler")
    assert shown.results.asked == ["1", "1"]


async def test_a_job_that_was_canceled_made_nothing(shown: Shown) -> None:
    await put(shown.database, "1")
    await shown.database.run(cancel_waiting, ALICE, ["1"], 200.0)
    found = await shown.views.find(ALICE, "1")
    assert found is not None
    assert (found.status, found.outputs, found.error, found.progress) == (Status.CANCELED, (), None, None)
    assert shown.results.asked == []


async def test_a_job_is_kept_from_its_end_on(shown: Shown) -> None:
    await put(shown.database, "waits")
    await put(shown.database, "done", window=1)
    await end(shown.database, "done", at_s=300.0)
    waits, done = await shown.views.find(ALICE, "waits"), await shown.views.find(ALICE, "done")
    assert waits is not None
    assert done is not None
    assert (waits.keep_until_s, done.keep_until_s) == (100.0 + HISTORY_S, 300.0 + HISTORY_S)


async def test_a_neighbours_job_is_not_there_whatever_is_known_of_it(shown: Shown) -> None:
    await put(shown.database, "1", window=1)
    await shown.learn()
    assert await shown.views.find(MALLORY, "1") is None
    await end(shown.database, "1")
    assert await shown.views.find(MALLORY, "1") is None
    assert shown.results.asked == []


async def test_a_page_goes_on_where_there_is_more(shown: Shown) -> None:
    for number in range(4):
        await put(shown.database, str(number), created_at_s=100.0 + number)
    first = await shown.views.page(ALICE, ListJobs(frozenset(), {}, 2))
    assert ([job.prompt_id for job in first.jobs], first.next) == (["3", "2"], After(102.0, "2"))
    last = await shown.views.page(ALICE, ListJobs(frozenset(), {}, 2, first.next))
    assert ([job.prompt_id for job in last.jobs], last.next) == (["1", "0"], None)
    assert (await shown.views.page(ALICE, ListJobs(frozenset(), {}, 4))).next is None
    nothing = await shown.views.page(MALLORY, ListJobs(frozenset(), {}, 4))
    assert (nothing.jobs, nothing.next) == ((), None)


@pytest.mark.parametrize("status", Status)
async def test_a_list_of_a_status_has_it_in_each_row(shown: Shown, status: Status) -> None:
    for name in ("gone", "given", "stopping", "runs", "succeeded", "failed", "waits", "canceled"):
        await put(shown.database, name, window=0 if name in ("waits", "canceled") else 100)
    for name in ("runs", "stopping"):
        await shown.database.run(start, name, 160.0)
    for name in ("stopping", "gone"):
        await shown.database.run(wish, name, CANCEL)
    await shown.database.run(give_back, "gone", 170.0, "comfyui-gone")
    await shown.database.run(cancel_waiting, ALICE, ["canceled"], 200.0)
    for state in (StoredState.SUCCEEDED, StoredState.FAILED):
        await end(shown.database, state, state)
    every = (await shown.views.page(ALICE, ListJobs(frozenset(), {}, 100))).jobs
    some = (await shown.views.page(ALICE, ListJobs(frozenset({status}), {}, 100))).jobs
    assert some
    assert some == tuple(job for job in every if job.status is status)

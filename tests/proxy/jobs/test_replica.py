"""What other processes write of jobs, and what an earlier start of the gate left: known here as it stands in the database."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from policy.call import JobExtras, Place
from policy.principal import Principal
from policy.rules.prompt import LAST_PLACE
from proxy.config.jobs import JobsSettings
from proxy.jobs import housekeeping as housekeeping_module
from proxy.jobs import store_upkeep
from proxy.jobs.admission import JobAdmission
from proxy.jobs.housekeeping import Housekeeping
from proxy.jobs.idempotency_db import Kept, KeptSubmissions
from proxy.jobs.idempotency_db import Place as KeyPlace
from proxy.jobs.job import Job, JobState, Outcome
from proxy.jobs.job_finder import JobFinder
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.replica import JobReplica
from proxy.jobs.store_reading import changes
from proxy.jobs.store_upkeep import retry, take_over, wish
from proxy.persistence.operations import Database, DatabaseUnavailable, Operation, Rows, Statement
from proxy.upstream.client import Upstream
from tests.proxy.jobs.following import ALICE, MALLORY, SUBMITTED, Following, opened
from tests.proxy.jobs.stored import ended

NOBODY = None
"""No ComfyUI is asked here."""


async def test_what_is_on_disk_is_known_after_a_start() -> None:
    async with opened() as database:
        before = Following(NOBODY, database, "gate/1")
        running, waiting = await before.running(), await before.recorded(MALLORY, Place.WAITING)
        after = Following(NOBODY, database, "gate/2")
        await after.replica.load()
        assert after.registry.of(ALICE).running() == [running.prompt_id]
        assert after.registry.of(MALLORY).pending() == [waiting.prompt_id]
        job = after.registry.job(running.prompt_id)
        assert job is not None
        assert (job.gate, (await after.stored(running.prompt_id)).gate) == ("gate/2", "gate/2"), "the first one is gone"


async def test_another_gates_jobs_are_followed_by_what_it_writes() -> None:
    async with opened() as database:
        first, second = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        changed: list[str] = []
        over: list[str] = []
        second.replica.on_foreign_change = lambda job: changed.append(job.prompt_id)
        second.registry.on_read_end = lambda job: over.append(job.prompt_id)
        job = await first.recorded(place=Place.NEXT)
        own = second.registry.of(ALICE)
        await second.replica.catch_up()
        assert (own.pending(), changed) == ([job.prompt_id], [job.prompt_id])
        await first.records.start(job.prompt_id, first.now_s)
        await second.replica.catch_up()
        assert own.running() == [job.prompt_id]
        assert not over
        await first.records.finish(job, ended())
        await second.replica.catch_up()
        assert (own.finished(), over) == ([job.prompt_id], [job.prompt_id])
        await second.replica.catch_up()
        assert (len(changed), len(over)) == (3, 1), "nothing is told twice"
        await first.records.forget(ALICE, [job.prompt_id])
        await second.replica.catch_up()
        assert not own.owns(job.prompt_id)


async def test_what_this_gate_does_itself_is_known_better_here() -> None:
    async with opened() as database:
        parts = Following(NOBODY, database)
        changed: list[str] = []
        parts.replica.on_foreign_change = lambda job: changed.append(job.prompt_id)
        job = await parts.recorded(place=Place.NEXT)
        parts.registry.dispatched(job.prompt_id)
        parts.registry.start(job)
        await parts.replica.catch_up()
        assert (job.state, changed) == (JobState.RUNNING, [])


async def test_what_was_canceled_elsewhere_while_it_waited_is_gone() -> None:
    async with opened() as database:
        first, second = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        job = await first.recorded(place=Place.WAITING)
        await second.replica.load()
        await first.records.cancel_waiting(ALICE, [job.prompt_id])
        await second.replica.catch_up()
        assert second.registry.job(job.prompt_id) is None


@pytest.mark.parametrize("is_followed_here", [True, False])
async def test_a_job_that_the_operator_cancels_is_stopped_by_the_gate_that_follows_it(is_followed_here: bool) -> None:
    async with opened() as database:
        first, second = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        asked: list[str] = []
        job = await first.running()
        await second.replica.load()
        gate = second if is_followed_here else first
        gate.replica.on_cancel_wish = lambda job: asked.append(job.prompt_id)
        await database.run(wish, job.prompt_id, "cancel")
        await gate.replica.catch_up()
        assert asked == ([job.prompt_id] if is_followed_here else []), "by the one that took it over at its start"


async def test_a_tried_job_that_another_gate_has_taken_up_is_known_with_all_that_it_came_with() -> None:
    """It came to its turn before it was taken out of ComfyUI's queue, and the other gate saw it there."""
    async with opened() as database:
        gate, other = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        job = gate.registry.claim(ALICE, None, client_id="tab", cost_s=10.0)
        row = JobRow(job.prompt_id, ALICE, state=StoredState.DISPATCHED, number=LAST_PLACE, comfyui="default")
        assert await other.records.adopt(row, SUBMITTED) is not None
        await gate.records.record(job, SUBMITTED, Place.THERE, JobExtras(labels={"shot": "12"}))
        assert (job.state, job.gate, job.number) == (JobState.DISPATCHED, "gate/2", LAST_PLACE)
        labels = await database.read(rows_of, "SELECT name, value FROM job_labels")
        assert labels == [("shot", "12")]


async def test_a_job_that_the_operator_retries_waits_here_too() -> None:
    async with opened() as database:
        parts = Following(NOBODY, database)
        job = await parts.running()
        job.outcome = Outcome.FAILED
        await parts.records.finish(job, ended(StoredState.FAILED))
        parts.registry.end(job)
        await database.run(retry, job.prompt_id)
        await parts.replica.catch_up()
        assert (parts.registry.of(ALICE).pending(), parts.registry.of(ALICE).finished()) == ([job.prompt_id], [])


def rows_of(sql: str) -> Operation[Rows]:
    return (yield Statement(sql))


class Unsaid:
    """A database that does what it is asked, or nothing, and says that it does not know, until `is_silent` is over."""

    def __init__(self, database: Database, *, does_it: bool = True) -> None:
        self._database, self.is_silent, self._does_it = database, True, does_it

    async def run(self, *asked: Any, **more: Any) -> Any:
        is_done = self._does_it or not self.is_silent
        done = await self._database.run(*asked, **more) if is_done else None
        if self.is_silent:
            raise DatabaseUnavailable("nobody said so")
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


async def unsaid(database: Database, place: Place, *, has_key: bool) -> tuple[Following, Job]:
    """A gate whose client was told that its job is not on disk, where it is."""
    silent = Unsaid(database)
    parts = Following(NOBODY, cast(Database, silent))
    job = parts.registry.claim(ALICE, None, client_id="tab", cost_s=10.0)
    if has_key:
        kept = Kept(b"fingerprint", job.prompt_id, parts.now_s)
        await KeptSubmissions(database).put(KeyPlace(ALICE, b"key"), kept, parts.now_s)
    with pytest.raises(DatabaseUnavailable):
        await parts.records.record(job, SUBMITTED, place)
    parts.registry.release(job.prompt_id)
    assert await parts.row(job.prompt_id) is not None
    await parts.replica.catch_up()
    assert not parts.registry.of(ALICE).owns(job.prompt_id), "it may go yet"
    silent.is_silent = False
    return parts, job


@pytest.mark.parametrize("place", [Place.WAITING, Place.NEXT])
async def test_a_job_that_nobody_was_told_of_is_deleted(place: Place) -> None:
    async with opened() as database:
        parts, job = await unsaid(database, place, has_key=False)
        await parts.replica.recover()
        assert not parts.registry.of(ALICE).owns(job.prompt_id)
        assert await parts.row(job.prompt_id) is None


@pytest.mark.parametrize("place", [Place.WAITING, Place.NEXT])
async def test_a_job_that_an_idempotency_key_names_stays_and_waits_for_its_client(place: Place) -> None:
    async with opened() as database:
        parts, job = await unsaid(database, place, has_key=True)
        finder = JobFinder(cast(Upstream, NOBODY), parts.registry, parts.records, parts.watcher)
        alice = Principal("key", ALICE)
        with pytest.raises(DatabaseUnavailable):
            await finder.has(alice, job.prompt_id)
        await parts.replica.recover()
        assert await finder.has(alice, job.prompt_id)
        row = await parts.stored(job.prompt_id)
        assert (row.state, row.gate) == ("waiting", "")
        [given] = await parts.records.give()
        assert given.job.prompt_id == job.prompt_id


async def given_anew(database: Database, prompt_id: str) -> Following:
    """Another gate, which has taken the job over after its lease, found that ComfyUI has not got it, and given it."""
    other = Following(NOBODY, database, "gate/2")
    await database.run(take_over, "gate/2", math.inf, other.now_s + 10.0)
    await other.replica.catch_up()
    job = other.registry.job(prompt_id)
    assert job is not None
    assert await other.records.give_back(job, "comfyui-restarted")
    [given] = await other.records.give()
    assert given.job.prompt_id == prompt_id
    return other


async def test_a_job_that_another_gate_has_given_anew_is_not_given_back_by_the_one_that_had_it() -> None:
    async with opened() as database:
        parts = Following(NOBODY, database, "gate/1")
        job = await parts.running()
        await given_anew(database, job.prompt_id)
        assert not await parts.records.give_back(job, "comfyui-gone")
        row = await parts.stored(job.prompt_id)
        assert (row.state, row.gate, job.gate) == ("dispatched", "gate/2", "gate/2")


class Slow:
    """A database of which somebody else makes use after each time that all changes were read in it."""

    def __init__(self, database: Database, then: Callable[[], Awaitable[object]]) -> None:
        self._database, self._then = database, then

    async def read(self, *asked: Any) -> Any:
        found = await self._database.read(*asked)
        if asked[0] is changes:
            await self._then()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


async def test_a_job_that_another_gate_gives_while_this_one_recovers_runs_there_alone() -> None:
    """This gate was not told that it had given the job, and never sent it."""
    async with opened() as database:
        silent = Unsaid(database)
        silent.is_silent = False
        parts = Following(NOBODY, cast(Database, silent))
        job = await parts.recorded(place=Place.WAITING)
        silent.is_silent = True
        with pytest.raises(DatabaseUnavailable):
            await parts.records.give()
        silent.is_silent = False
        slow = cast(Database, Slow(database, lambda: given_anew(database, job.prompt_id)))
        await JobReplica(slow, parts.registry, parts.records).recover()
        row = await parts.stored(job.prompt_id)
        assert (row.state, row.gate) == ("dispatched", "gate/2")


async def test_a_job_that_another_gate_has_given_stays_there_though_the_client_of_this_one_was_told_nothing() -> None:
    async with opened() as database:
        parts, job = await unsaid(database, Place.NEXT, has_key=True)
        await given_anew(database, job.prompt_id)
        await parts.replica.recover()
        row = await parts.stored(job.prompt_id)
        assert (row.state, row.gate) == ("dispatched", "gate/2")


async def test_a_job_that_nobody_was_told_of_stays_where_it_was_given_meanwhile() -> None:
    """Another gate found it waiting; deleted, it would run beside what the window has room for."""
    async with opened() as database:
        parts, job = await unsaid(database, Place.WAITING, has_key=False)
        other = Following(NOBODY, database, "gate/2")
        await other.replica.load()
        [given] = await other.records.give()
        assert given.job.prompt_id == job.prompt_id
        await parts.replica.recover()
        assert (await parts.stored(job.prompt_id)).gate == "gate/2"
        assert parts.registry.of(ALICE).pending() == [job.prompt_id]


async def test_a_job_of_which_it_is_not_known_whether_comfyui_has_it_is_followed_by_nobody() -> None:
    """By the gate that has asked ComfyUI, when it finds out what it may have given, nor by another one, which had seen it before."""
    async with opened() as database:
        parts, other = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        job = await parts.recorded(place=Place.NEXT)
        await other.replica.catch_up()
        assert other.registry.knows(job.prompt_id)
        parts.registry.release(job.prompt_id)
        await parts.records.doubts.note(job.prompt_id)
        await parts.replica.recover()
        assert not parts.registry.knows(job.prompt_id)
        changed: list[str] = []
        other.replica.on_foreign_change = lambda job: changed.append(job.prompt_id)
        await other.replica.catch_up()
        assert (other.registry.knows(job.prompt_id), changed) == (False, [job.prompt_id])


async def test_a_job_that_was_taken_up_without_a_word_of_it_is_followed() -> None:
    """ComfyUI had it; unknown here, it would keep its place in ComfyUI's window for ever, though ComfyUI goes away."""
    async with opened() as database:
        silent = Unsaid(database)
        parts = Following(NOBODY, cast(Database, silent))
        row = JobRow(str(uuid.uuid4()), ALICE, state=StoredState.DISPATCHED, comfyui="default")
        with pytest.raises(DatabaseUnavailable):
            await parts.records.adopt(row, SUBMITTED)
        silent.is_silent = False
        await parts.dispatcher.dispatch()
        assert parts.registry.of(ALICE).pending() == [row.prompt_id]


@pytest.mark.parametrize("is_doubtful", [True, False])
async def test_a_job_that_came_to_nothing_while_the_database_was_away_keeps_no_place(is_doubtful: bool) -> None:
    """It is deleted then, or followed where ComfyUI may have it."""
    async with opened() as database:
        away = Unsaid(database, does_it=False)
        away.is_silent = False
        parts = Following(NOBODY, cast(Database, away))
        limits = cast(Any, SimpleNamespace(free_job=lambda prompt_id: None))
        admission = JobAdmission(parts.registry, parts.records, limits, limits)
        job = await parts.recorded(place=Place.NEXT)
        away.is_silent = True
        with pytest.raises(DatabaseUnavailable):
            await admission.release(job.prompt_id, is_doubtful=is_doubtful)
        assert parts.records.is_uncertain
        away.is_silent = False
        await parts.replica.recover()
        known = parts.registry.job(job.prompt_id)
        assert (await parts.row(job.prompt_id) is not None, known is not None) == (is_doubtful, is_doubtful)


def housekeeping(parts: Following, dropped: list[tuple[str, str, int]], **settings: object) -> Housekeeping:
    made = JobsSettings.model_validate(settings)
    return Housekeeping(
        parts.database,
        parts.registry,
        parts.records,
        parts.watcher.request_sync,
        lambda: made,
        lambda: [ALICE, MALLORY],
        lambda *told: dropped.append(told),
    )


async def test_a_job_that_stands_there_as_this_gates_and_is_unknown_is_looked_for() -> None:
    """Whatever went wrong: it would keep its place in ComfyUI's window for ever."""
    async with opened() as database:
        parts = Following(NOBODY, database)
        followed, lost = await parts.running(), await parts.running()
        keeping = housekeeping(parts, [])
        await keeping.keep_leases()
        told = [parts.records.is_uncertain]
        parts.registry.release(lost.prompt_id)
        await keeping.keep_leases()
        told.append(parts.records.is_uncertain)
        await parts.dispatcher.dispatch()
        assert sorted(parts.registry.of(ALICE).running()) == sorted([followed.prompt_id, lost.prompt_id])
        await parts.records.doubts.note(lost.prompt_id)
        parts.registry.release(lost.prompt_id)
        await keeping.keep_leases()  # that nobody knows is known of it
        assert [*told, parts.records.is_uncertain] == [False, True, False]


async def test_jobs_of_a_gate_that_is_gone_are_followed_by_one_that_is_there() -> None:
    async with opened() as database:
        gone, here = Following(NOBODY, database, "gate/1"), Following(NOBODY, database, "gate/2")
        job = await gone.running()
        await here.replica.catch_up()
        keeping = housekeeping(here, [])
        await keeping.keep_leases()
        assert (await here.stored(job.prompt_id)).gate == "gate/1", "its lease has not ended"
        gone.now_s = time.time() - 3600
        late = await gone.running()
        await here.replica.catch_up()
        await keeping.keep_leases()
        found = here.registry.job(late.prompt_id)
        assert found is not None
        assert (found.gate, (await here.stored(late.prompt_id)).gate) == ("gate/2", "gate/2")


@pytest.mark.parametrize(("at_once", "told"), [(200, [2]), (2, [2]), (1, [1, 1])])
async def test_what_is_kept_no_more_is_known_no_more_and_counted(
    monkeypatch: pytest.MonkeyPatch, at_once: int, told: list[int]
) -> None:
    """Everybody who writes waits for a transaction, so that it deletes some at a time."""
    for module in (store_upkeep, housekeeping_module):
        monkeypatch.setattr(module, "RETAINED_AT_ONCE", at_once)
    async with opened() as database:
        parts, dropped = Following(NOBODY, database), list[tuple[str, str, int]]()
        parts.window = 9
        jobs = [await parts.running() for _ in range(3)]
        for job in jobs:
            await parts.records.finish(job, ended()._replace(ended_at_s=parts.now_s))
            parts.registry.end(job)
        theirs = await parts.running(MALLORY)
        await housekeeping(parts, dropped, history_jobs=1).retain(ALICE)
        assert len(parts.registry.of(ALICE).finished()) == 1
        assert dropped == [(ALICE, "count", count) for count in told]
        assert parts.registry.of(ALICE).finished() == [jobs[-1].prompt_id]
        assert parts.registry.job(theirs.prompt_id) is theirs

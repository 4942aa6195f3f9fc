"""A job is claimed as a whole or not at all, and what it held is free when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from policy.call import ClaimJob, JobExtras, JobUpdate, Place, RecordJob
from policy.principal import Principal, TenantId
from policy.violation import Reason, Violation
from proxy.http.errors import LimitExceeded, UpstreamUnavailable
from proxy.jobs.admission import JobAdmission
from proxy.jobs.doubts import UNSURE
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.persistence.sqlite import SqliteDatabase
from tests.proxy.conftest import allotment, context
from tests.proxy.jobs.following import SUBMITTED, Following
from tests.proxy.upstreams import GUARD_S

ALICE, BOB = TenantId("alice"), TenantId("bob")
WISH = ClaimJob(None, "workflow")
WISHED = "6f1c1f4e-58c8-4f4b-9d9b-0d7c6f4c9a10"
Answer = Callable[[str], Any]


@dataclass
class Desks:
    """An admission with everything real behind it, and what it told."""

    admission: JobAdmission
    parts: Following
    slots: ConcurrencyLimits
    budgets: GpuBudgets
    queued: list[Job]

    async def claim(self, who: Principal | None = None, wish: ClaimJob = WISH) -> Job:
        claimed = await self.admission.claim(who or context(), wish)
        job = self.registry.job(claimed.prompt_id)
        assert job is not None
        return job

    async def submit(self, who: Principal | None = None) -> Job:
        job = await self.claim(who)
        if await self.record(job) is None:
            await self.record(job, Place.WAITING)
        self.admission.accepted(job.prompt_id)
        return job

    async def record(self, job: Job, place: Place = Place.NEXT) -> float | None:
        return await self.admission.record(RecordJob(job.prompt_id, place, *SUBMITTED))

    def start(self, job: Job) -> None:
        self.registry.start(job)

    def end(self, job: Job, outcome: Outcome = Outcome.COMPLETED, gpu_s: float = 0.0) -> None:
        self.registry.end(job)
        job.outcome, job.gpu_s = outcome, gpu_s
        self.admission.ended(job)

    @property
    def registry(self) -> JobRegistry:
        return self.parts.registry

    @property
    def held(self) -> tuple[int, int, float]:
        """Slots, jobs of the registry and what those will cost, in jobs of 10 s."""
        registry = self.registry
        return (
            self.slots.jobs_of(ALICE) + self.slots.jobs_of(BOB),
            len(registry.active()),
            (registry.tally.cost_s(ALICE) + registry.tally.cost_s(BOB)) / 10,
        )

    async def used_s(self, tenant: TenantId = ALICE) -> float:
        (left,) = await self.budgets.remaining(tenant)
        return left.total - left.remaining


Make = Callable[..., Any]


@pytest.fixture
async def make(state: SqliteDatabase) -> AsyncIterator[Make]:
    made: list[Desks] = []

    async def make(limits: Mapping[str, Any] | None = None, is_taken: Answer | None = None) -> Desks:
        allowed = allotment({"gpu_seconds": "1000/day", **(limits or {})})
        parts, slots, queued = Following(None, state), ConcurrencyLimits(allowed), list[Job]()
        budgets = GpuBudgets(allowed, state)
        await budgets.start()
        more: dict[str, Any] = {} if is_taken is None else {"is_taken": is_taken}
        admission = JobAdmission(parts.registry, parts.records, slots, budgets, queued.append, **more)
        made.append(Desks(admission, parts, slots, budgets, queued))
        return made[-1]

    yield make
    for each in made:
        await each.admission.stop()


async def test_a_claimed_job_has_an_owner_and_a_slot(make: Make) -> None:
    desks = await make()
    job = await desks.claim()
    assert (job.tenant, job.subject, job.workflow, job.state) == (ALICE, "7f3a9c21", "workflow", JobState.CLAIMED)
    assert desks.held == (1, 1, 1)
    assert desks.queued == []
    assert await desks.parts.row(job.prompt_id) is None
    assert await desks.record(job) == (await desks.parts.stored(job.prompt_id)).number
    assert (job.state, desks.queued) == (JobState.SENT, []), "its client is not told yet"
    desks.admission.accepted(job.prompt_id)
    assert (job.state, desks.queued) == (JobState.DISPATCHED, [job])
    desks.admission.accepted("gone meanwhile")
    assert desks.queued == [job]


async def test_what_waits_is_on_disk_before_its_client_is_told(make: Make) -> None:
    desks = await make()
    desks.parts.window = 1
    first, second = await desks.submit(), await desks.claim()
    assert await desks.record(second, Place.NEXT) is None, "there is no room, and it is not recorded"
    assert (second.state, await desks.parts.row(second.prompt_id)) == (JobState.CLAIMED, None)
    assert await desks.record(second, Place.WAITING) is None
    assert (await desks.parts.stored(second.prompt_id)).state == "waiting"
    desks.admission.accepted(second.prompt_id)
    assert (second.state, desks.queued) == (JobState.WAITING, [first, second])
    assert not (await desks.admission.claim(context(), WISH)).is_next


async def test_an_id_that_another_gate_has_recorded_meanwhile_is_refused(make: Make) -> None:
    desks = await make()
    job = await desks.claim(wish=ClaimJob(WISHED, "workflow"))
    other = Following(None, desks.parts.database, "gate/2")
    await other.recorded(BOB, prompt_id=WISHED)
    with pytest.raises(Violation) as refused:
        await desks.record(job)
    assert refused.value.reason is Reason.PROMPT_ID_TAKEN
    await desks.admission.release(WISHED)
    assert (await desks.parts.stored(WISHED)).tenant == BOB, "nothing of the other job is lost"
    assert desks.held == (0, 0, 0)


async def test_a_job_whose_asset_was_deleted_meanwhile_is_refused(make: Make) -> None:
    desks = await make()
    job = await desks.claim()
    extras = JobExtras({}, ("00000000-0000-4000-8000-000000000001",))
    for place in (Place.NEXT, Place.WAITING):
        with pytest.raises(Violation) as refused:
            await desks.admission.record(RecordJob(job.prompt_id, place, *SUBMITTED, extras))
        assert refused.value.reason is Reason.MISSING_ASSET
    await desks.admission.release(job.prompt_id)
    assert await desks.parts.row(job.prompt_id) is None
    assert desks.held == (0, 0, 0)


async def test_without_a_free_slot_nothing_is_claimed(make: Make) -> None:
    desks = await make({"queued_jobs": 2})
    claims = await asyncio.gather(*(desks.claim() for _ in range(20)), return_exceptions=True)
    refused = [claim for claim in claims if isinstance(claim, LimitExceeded)]
    assert len(refused) == 18
    assert {error.reason for error in refused} == {"queue-full"}
    assert desks.held == (2, 2, 2)


async def test_without_a_budget_nothing_is_claimed(make: Make) -> None:
    desks = await make({"gpu_seconds": "30/day"})
    claims = await asyncio.gather(*(desks.claim() for _ in range(20)), return_exceptions=True)
    refused = [claim for claim in claims if isinstance(claim, LimitExceeded)]
    assert len(refused) == 17, "each of 10 s, as long as nothing was measured: three fit in"
    assert {error.reason for error in refused} == {"budget-spent"}
    assert desks.held == (3, 3, 3)


async def test_a_claim_that_is_cancelled_leaves_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client went away while Redis was asked."""
    desks, asked = await make(), asyncio.Event()

    async def hang(tenant: TenantId, queued_s: float) -> None:
        asked.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(desks.budgets, "check", hang)
    claiming = asyncio.ensure_future(desks.claim())
    await asked.wait()
    assert desks.held == (1, 1, 1)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert desks.held == (0, 0, 0)


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_wished_id_is_kept_when_nobody_has_it(make: Make, is_taken: bool) -> None:
    async def answer(prompt_id: str) -> bool:
        assert prompt_id == WISHED
        return is_taken

    desks = await make(is_taken=answer)
    job = await desks.claim(wish=ClaimJob(WISHED, "workflow"))
    assert (job.prompt_id == WISHED) is not is_taken
    assert (await desks.claim()).prompt_id not in (WISHED, job.prompt_id)


async def test_an_id_that_nobody_can_ask_about_is_not_claimed(make: Make) -> None:
    async def answer(prompt_id: str) -> bool:
        raise UpstreamUnavailable

    desks = await make(is_taken=answer)
    with pytest.raises(UpstreamUnavailable):
        await desks.claim(wish=ClaimJob(WISHED, "workflow"))
    assert desks.held == (0, 0, 0)


async def test_ones_own_taken_id_is_refused_and_a_neighbours_is_replaced(make: Make) -> None:
    desks = await make()
    wish = ClaimJob(WISHED, "workflow")
    assert (await desks.claim(wish=wish)).prompt_id == WISHED
    with pytest.raises(Violation) as refused:
        await desks.claim(wish=wish)
    assert refused.value.reason is Reason.PROMPT_ID_TAKEN
    assert (await desks.claim(context("bob"), wish)).prompt_id != WISHED
    assert desks.held == (2, 2, 2)


async def test_an_id_of_a_neighbours_job_that_is_on_disk_alone_is_replaced(make: Make) -> None:
    """The gate was started again since, and nothing in memory tells of it."""
    desks = await make()
    wish = ClaimJob(WISHED, "workflow")
    job = await desks.claim(wish=wish)
    await desks.record(job, Place.WAITING)
    await desks.parts.records.cancel_waiting(ALICE, [WISHED])
    desks.registry._retired.clear()
    replaced = await desks.claim(context("bob"), wish)
    assert replaced.prompt_id != WISHED
    assert await desks.record(replaced) is not None
    assert (await desks.claim(wish=wish)).prompt_id == WISHED, "its own tenant may have it again"


async def test_of_two_submissions_of_one_id_at_once_one_is_refused(make: Make) -> None:
    both = asyncio.Barrier(2)

    async def answer(prompt_id: str) -> bool:
        await both.wait()
        return False

    desks = await make(is_taken=answer)
    claims = (desks.claim(wish=ClaimJob(WISHED, "workflow")) for _ in range(2))
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Job", "Violation"]


async def test_a_job_that_never_came_to_be_is_released(make: Make) -> None:
    desks = await make()
    job = await desks.claim()
    await desks.admission.release(job.prompt_id)
    await desks.admission.release(job.prompt_id)
    assert desks.held == (0, 0, 0)


@pytest.mark.parametrize("is_doubtful", [True, False])
async def test_a_recorded_job_that_was_not_taken_is_taken_off_the_disk(make: Make, is_doubtful: bool) -> None:
    """Where ComfyUI did not answer it may be there: then it is kept until that is known, and nobody sees it."""
    desks = await make()
    job = await desks.claim()
    await desks.record(job)
    await desks.admission.release(job.prompt_id, is_doubtful=is_doubtful)
    row = await desks.parts.row(job.prompt_id)
    assert (row is not None and row.wish) == (is_doubtful and UNSURE)
    assert desks.held == (0, 0, 0)
    again = Following(None, desks.parts.database, "gate/2")
    await again.replica.load()
    assert again.registry.active() == []


async def test_what_waits_and_is_canceled_frees_its_slot(make: Make) -> None:
    desks = await make()
    desks.parts.window = 0
    job = await desks.submit()
    for canceled in await desks.parts.records.cancel_waiting(ALICE, [job.prompt_id]):
        desks.admission.let_go(canceled)
    assert desks.held == (0, 0, 0)


async def test_what_a_job_used_is_counted_once_it_ended(make: Make) -> None:
    desks = await make()
    job = await desks.submit()
    desks.start(job)
    desks.end(job, gpu_s=7.0)
    assert desks.held == (0, 0, 0)
    await desks.admission.stop()
    assert await desks.used_s() == 7.0, "also when the gate stops at that moment"
    assert await desks.used_s(BOB) == 0.0


@pytest.mark.parametrize("is_seen", [True, False], ids=["in the history", "deleted before the gate looked"])
async def test_an_id_that_comes_again_is_counted_again(make: Make, is_seen: bool) -> None:
    """A tenant runs, deletes the job, and submits under the same id: each run takes GPU time."""
    desks = await make()
    for run in range(3):
        job = await desks.claim(wish=ClaimJob(WISHED, "workflow"))
        assert job.prompt_id == WISHED
        job.number = float(run)
        desks.registry.start(job, 100.0 * run if is_seen else None)
        desks.end(job, Outcome.COMPLETED if is_seen else Outcome.LOST, gpu_s=7.0)
        desks.admission.ended(job)
        desks.registry.release(WISHED)
    await desks.admission.stop()
    assert await desks.used_s() == 21.0, "and each once, however often its end is told"


async def test_the_next_job_of_the_same_workflow_is_expected_to_take_as_long(make: Make) -> None:
    desks = await make()
    for outcome, gpu_s in ((Outcome.COMPLETED, 4.0), (Outcome.FAILED, 0.5), (Outcome.CANCELLED, 0.0)):
        job = await desks.submit()
        desks.start(job)
        desks.end(job, outcome, gpu_s)
        following = await desks.claim()
        assert following.cost_s == 4.0, outcome
        await desks.admission.release(following.prompt_id)


@pytest.mark.parametrize(
    ("has_started", "outcome", "gpu_s"),
    [(False, Outcome.CANCELLED, 0.0), (False, Outcome.LOST, 0.0), (True, Outcome.LOST, 0.0), (True, Outcome.LOST, 3.0)],
)
async def test_jobs_that_left_no_trace_hold_nothing(
    make: Make, has_started: bool, outcome: Outcome, gpu_s: float
) -> None:
    desks = await make()
    job = await desks.submit()
    if has_started:
        desks.start(job)
    desks.end(job, outcome, gpu_s)
    assert desks.held == (0, 0, 0)
    await desks.admission.stop()
    assert await desks.used_s() == gpu_s


async def test_what_an_answer_tells_is_known_before_the_observer_asks(make: Make) -> None:
    desks = await make()
    job = await desks.submit()
    own = desks.registry.of(ALICE)
    assert own.finished() == []
    desks.admission.apply_update(JobUpdate(job.prompt_id, has_ended=True))
    assert (own.pending(), own.finished()) == ([], [job.prompt_id])
    desks.admission.apply_update(JobUpdate(job.prompt_id, is_deleted=True))
    assert own.finished() == []


async def test_jobs_of_another_gate_take_slots(make: Make) -> None:
    desks = await make({"queued_jobs": 3})
    other = Following(None, desks.parts.database, "gate/2")
    await other.running()
    waiting = await other.recorded()
    await desks.parts.replica.catch_up()
    on_its_way = await desks.claim()
    desks.admission.synced()
    assert desks.slots.jobs_of(ALICE) == 3, "what is on its way keeps its slot"
    with pytest.raises(LimitExceeded):
        await desks.claim()
    assert (await desks.claim(context("bob"))).tenant == BOB
    await desks.admission.release(on_its_way.prompt_id)
    await other.records.forget(ALICE, [waiting.prompt_id])
    await desks.parts.replica.catch_up()
    desks.admission.synced()
    assert desks.slots.jobs_of(ALICE) == 1, "what has gone is free"
    assert (await desks.claim()).tenant == ALICE


async def test_a_store_that_fails_does_not_hold_the_stop(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desks = await make()

    async def fail(*_: Any) -> None:
        raise OSError("the disk is gone")

    job = await desks.submit()
    desks.start(job)
    monkeypatch.setattr(desks.budgets, "add", fail)
    desks.end(job, gpu_s=1.0)
    async with asyncio.timeout(GUARD_S):
        await desks.admission.stop()
    assert "gpu seconds failed" in caplog.text

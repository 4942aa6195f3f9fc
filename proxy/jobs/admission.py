"""Where a job is claimed before it is recorded: ownership, a slot and the budget, or none of them.

What becomes of the jobs comes back here: slots are freed, GPU seconds counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from policy.call import AnswerNode, ClaimedJob, ClaimJob, JobUpdate, Place, RecordJob
from policy.costs import Costs
from policy.documents import Kind
from policy.principal import Principal, TenantId
from policy.rule_context import OwnJobs
from policy.rules.results import SDK_CLIENT
from policy.v2.assets import missing
from policy.violation import Reason, Violation
from proxy.jobs.job_rows import Submitted
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.noted import Note
from proxy.jobs.placing import Placing
from proxy.jobs.records import JobRecords, Unsaid
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome
from proxy.jobs.store_operations import AssetGone, JobIdTaken
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")


COUNT_EACH_S: Final = 30.0
"""All unfinished jobs are looked through then: each submission announces a change of ComfyUI's queue, and there may be thousands that wait."""
_TAKEN: Final = "You have a job of this prompt_id: leave prompt_id out, or choose another."


async def _is_unknown(prompt_id: str) -> bool:
    return False


async def _nobody_listens(tenant: TenantId, jobs: OwnJobs) -> None:
    return


async def _nobody_follows(tenant: TenantId) -> None:
    return


class JobAdmission:
    """on_queued is called for each job that ComfyUI took. is_taken: whether it has a job of this id, whoever sent it."""

    def __init__(
        self,
        registry: JobRegistry,
        records: JobRecords,
        slots: ConcurrencyLimits,
        budgets: GpuBudgets,
        on_queued: Callable[[Job], None] = lambda job: None,
        is_taken: Callable[[str], Awaitable[bool]] = _is_unknown,
        kept: KeptDocuments | None = None,
        listen: Callable[[TenantId, OwnJobs], Awaitable[None]] = _nobody_listens,
        follow: Callable[[TenantId], Awaitable[None]] = _nobody_follows,
    ) -> None:
        """listen: called before a job without a client id goes to ComfyUI, whose events are all its tenant's sockets'. follow: before one of
        Comfy API v2 does, whose events are the gate's to hear."""
        self._registry = registry
        self._slots = slots
        self._budgets = budgets
        self._records = records
        self._costs = Costs()
        self._on_queued = on_queued
        self._is_taken = is_taken
        self._kept = KeptDocuments() if kept is None else kept
        self._tasks = Tasks()
        self._listen = listen
        self._follow = follow
        self._counted_at_s = -COUNT_EACH_S
        self.placing: Placing | None = None
        """Where there are several ComfyUIs."""

    async def stop(self) -> None:
        """What ended jobs have used is counted first."""
        await self._tasks.finish()

    @property
    def window(self) -> int:
        """How many jobs ComfyUI has at a time."""
        return self._records.window()

    async def claim(self, principal: Principal, wish: ClaimJob) -> ClaimedJob:
        """Raises LimitExceeded when the tenant has no slot or no budget left, Violation when it has a job of this id; then nothing is claimed."""
        tenant, prompt_id = principal.tenant, wish.prompt_id
        # SECURITY: with the id of a job beside the gate, a tenant would read and stop that job (tests/matrix/test_reuse.py).
        is_taken = prompt_id is not None and await self._is_foreign(tenant, prompt_id)
        if prompt_id is not None and self._registry.of(tenant).owns(prompt_id):
            raise Violation(
                Reason.PROMPT_ID_TAKEN,
                _TAKEN,
                "prompt_id",
            )
        if is_taken:
            prompt_id = None
        job = self._registry.claim(
            tenant,
            prompt_id,
            subject=principal.subject,
            workflow=wish.workflow,
            client_id=wish.client_id,
            priority=wish.priority,
            cost_s=self._costs.estimate(tenant, wish.workflow),
        )
        try:
            await self._slots.claim_job(tenant, job.prompt_id)
            # Last, with what else waits: else many could pass together before the first one counts.
            others_s = self._registry.tally.cost_s(tenant) - job.cost_s
            await self._budgets.check(tenant, max(0.0, round(others_s, 6)))  # sums of floats come close to zero
        except BaseException:
            self._release(job.prompt_id)
            raise
        if wish.prompt_id is not None:
            self._kept.forget(tenant, job.prompt_id)  # of an earlier job of the same id
        if not wish.client_id:
            await self._listen(tenant, self._registry.of(tenant))
        elif wish.client_id == SDK_CLIENT:
            await self._follow(tenant)
        return self._claimed(job, wish)

    def _claimed(self, job: Job, wish: ClaimJob) -> ClaimedJob:
        tally, claimed_ms = self._registry.tally, int(job.claimed_at_s * 1000)
        if self.placing is None:
            has_room = len(tally.given) < self.window and not tally.waiting
            return ClaimedJob(job.prompt_id, claimed_ms, has_room, job.sequence)
        first = self._registry.comfyuis[0]
        is_idle = not tally.waiting and not self._registry.given_to(first)
        is_judged = self.placing.is_able(first, job.tenant, wish.needs)
        return ClaimedJob(job.prompt_id, claimed_ms, is_idle, job.sequence, is_placed=True, is_judged=is_judged)

    async def check_room(self, principal: Principal) -> None:
        """Claims nothing. Raises LimitExceeded as `claim` would now, as far as this gate knows."""
        tenant = principal.tenant
        self._slots.check_job(tenant)
        await self._budgets.check(tenant, self._registry.tally.cost_s(tenant))

    async def _is_foreign(self, tenant: TenantId, prompt_id: str) -> bool:
        """SECURITY: the database and ComfyUI are asked whoever has it (test_admission.py)."""
        is_known = await self._records.is_foreign(tenant, prompt_id)
        return await self._is_taken(prompt_id) or is_known

    async def record(self, wish: RecordJob, note: Note | None = None) -> float | None:
        """Puts a claimed job on disk, with a note of somebody's: its number where ComfyUI is to be given it now, else None.

        Raises DatabaseUnavailable, Violation when a job of this id came to be in the meantime, or what it uses was deleted.
        """
        job = self._registry.job(wish.prompt_id)
        assert job is not None, "claimed"
        submitted = Submitted(wish.body, wish.originals, wish.outputs)
        try:
            return await self._records.record(job, submitted, wish.place, wish.extras, note)
        except JobIdTaken:
            raise Violation(Reason.PROMPT_ID_TAKEN, _TAKEN, "prompt_id") from None
        except AssetGone as gone:
            raise missing(str(gone)) from None

    def accepted(self, prompt_id: str) -> None:
        """Its client is told that the job is taken."""
        job = self._registry.job(prompt_id)
        if job is None:
            return
        if job.state is JobState.SENT:
            self._registry.dispatched(prompt_id)
        self._on_queued(job)

    def answered(self, tenant: TenantId, answer: AnswerNode) -> None:
        self._registry.of(tenant).answered(answer.prompt_id, answer.node_id)

    def apply_update(self, update: JobUpdate) -> None:
        """What an answer to its tenant tells of a job, while the queue watcher has still to ask."""
        job = self._registry.job(update.prompt_id)
        if job is None:
            return
        if update.is_deleted:
            self._kept.forget(job.tenant, update.prompt_id)
            self._registry.forget_history([update.prompt_id])
            return
        for document in update.documents:
            if document.kind is not Kind.ITEM or job.state is not JobState.ENDED:
                self._kept.put(job.tenant, update.prompt_id, document)
        if update.has_ended:
            self._registry.mark_over(update.prompt_id)

    async def release(self, prompt_id: str, *, is_doubtful: bool = False) -> None:
        """The job never came to be. is_doubtful: ComfyUI was sent it and did not answer. Raises DatabaseUnavailable; in memory it is gone all the same."""
        job = self._registry.job(prompt_id)
        is_recorded = job is not None and job.state is not JobState.CLAIMED
        self._release(prompt_id)
        if job is None or not is_recorded:
            return
        try:
            await (
                self._records.doubts.note(prompt_id) if is_doubtful else self._records.forget(job.tenant, [prompt_id])
            )
        except DatabaseUnavailable:
            # Nobody would see to its end, and it would keep its place in ComfyUI's window for ever.
            self._records.is_uncertain = True
            if not is_doubtful:
                self._records.unsaid[prompt_id] = Unsaid(job.tenant, Place.NEXT)
            raise

    def _release(self, prompt_id: str) -> None:
        self._registry.release(prompt_id)
        self._slots.free_job(prompt_id)

    def let_go(self, job: Job) -> None:
        """It has ended, or is gone, without having been followed here."""
        self._kept.forget(job.tenant, job.prompt_id)
        self._slots.free_job(job.prompt_id)

    def ended(self, job: Job) -> None:
        """However it ended: what it used is counted, what it held is free."""
        self._kept.forget(job.tenant, job.prompt_id, Kind.ITEM)
        self._slots.free_job(job.prompt_id)
        if job.gpu_s > 0:
            if job.outcome is Outcome.COMPLETED:
                self._costs.measure(job.tenant, job.workflow, job.gpu_s)
            self._tasks.start(self._budgets.add(job.tenant, job.run_id, job.gpu_s, job.ended_at_s), "gpu seconds")

    def synced(self) -> None:
        """The registry is as the database and ComfyUI's queue are: slots are counted by it, also of what another gate has taken.

        Mostly of the jobs that have changed since: of all of them now and then, for what was claimed and came to nothing.
        """
        now_s, changed = time.monotonic(), self._registry.tally.take_changed()
        if changed is None or now_s - self._counted_at_s > COUNT_EACH_S:
            self._counted_at_s, changed = now_s, None
            jobs = self._registry.active()
        else:
            jobs = [job for prompt_id in changed if (job := self._registry.job(prompt_id)) is not None]
        taken = {job.prompt_id: job.tenant for job in jobs if job.state not in (JobState.CLAIMED, JobState.ENDED)}
        self._slots.reconcile(taken, changed)

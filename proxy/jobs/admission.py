"""Where a job is claimed before it exists upstream: ownership, a slot, the budget and a place in the queue, or none of them.

What the queue watcher sees of the jobs comes back here: slots are freed, GPU seconds counted, the fair queue goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from policy.call import AnswerNode, ClaimedJob, ClaimJob, JobUpdate
from policy.documents import Kind
from policy.fairness import FairQueue, Listed
from policy.principal import Principal, TenantId
from policy.rule_context import OwnJobs
from policy.violation import Reason, Violation
from proxy.jobs.kept_documents import KeptJobs
from proxy.jobs.registry import Job, JobRegistry, JobState, Outcome
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")


async def _is_unknown(prompt_id: str) -> bool:
    return False


async def _nobody_listens(tenant: TenantId, jobs: OwnJobs) -> None:
    return


class JobAdmission:
    """on_queued is called for each job that ComfyUI took. is_taken: whether it has a job of this id, whoever sent it."""

    def __init__(
        self,
        registry: JobRegistry,
        slots: ConcurrencyLimits,
        budgets: GpuBudgets,
        weights: Mapping[str, float],
        on_queued: Callable[[Job], None] = lambda job: None,
        is_taken: Callable[[str], Awaitable[bool]] = _is_unknown,
        kept: KeptJobs | None = None,
        listen: Callable[[TenantId, OwnJobs], Awaitable[None]] = _nobody_listens,
    ) -> None:
        """listen: called before a job without a client id goes to ComfyUI, whose events are all its tenant's sockets'."""
        self._registry = registry
        self._slots = slots
        self._budgets = budgets
        self._fair = FairQueue(weights)
        self._on_queued = on_queued
        self._is_taken = is_taken
        self._kept = KeptJobs() if kept is None else kept
        self._tasks = Tasks()
        self._listen = listen

    async def stop(self) -> None:
        """What ended jobs have used is counted first."""
        await self._tasks.finish()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self._fair.set_weights(weights)

    async def claim(self, principal: Principal, wish: ClaimJob) -> ClaimedJob:
        """Raises LimitExceeded when the tenant has no slot or no budget left, Violation when it has a job of this id; then nothing is claimed."""
        tenant, prompt_id = principal.tenant, wish.prompt_id
        # SECURITY: with the id of a job beside the gate, a tenant would read and stop that job (tests/matrix/test_reuse.py).
        is_taken = prompt_id is not None and await self._is_taken(prompt_id)
        if prompt_id is not None and self._registry.of(tenant).owns(prompt_id):
            raise Violation(
                Reason.PROMPT_ID_TAKEN,
                "You have a job of this prompt_id: leave prompt_id out, or choose another.",
                "prompt_id",
            )
        if is_taken:
            prompt_id = None
        job = self._registry.claim(tenant, prompt_id, subject=principal.subject, workflow=wish.workflow)
        job.client_id = wish.client_id
        try:
            await self._slots.claim_job(tenant, job.prompt_id)
            job.number = self._fair.claim(tenant, job.prompt_id, wish.workflow, wish.priority)
            # Last, with what else waits: else many could pass together before the first one counts.
            others_s = self._fair.pending_cost_s(tenant) - self._fair.cost_s(job.prompt_id)
            await self._budgets.check(tenant, max(0.0, round(others_s, 6)))  # sums of floats come close to zero
        except BaseException:
            self.release(job.prompt_id)
            raise
        if wish.prompt_id is not None:
            self._kept.forget(tenant, job.prompt_id)  # of an earlier job of the same id
        if not wish.client_id:
            await self._listen(tenant, self._registry.of(tenant))
        return ClaimedJob(job.prompt_id, job.number, int(job.claimed_at_s * 1000))

    def submitted(self, job: ClaimedJob) -> None:
        """ComfyUI took the job."""
        self._registry.submitted(job.prompt_id, job.number)
        queued = self._registry.job(job.prompt_id)
        if queued is not None:
            self._on_queued(queued)

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
        self._registry.add_temp_files(update.prompt_id, update.temp_files)
        if update.has_ended:
            self._registry.mark_over(update.prompt_id)

    def release(self, prompt_id: str) -> None:
        """The job never came to be."""
        self._registry.release(prompt_id)
        self._slots.free_job(prompt_id)
        self._fair.release(prompt_id)

    def started(self, job: Job) -> None:
        self._fair.start(job.prompt_id)

    def ended(self, job: Job) -> None:
        """However it ended: what it used is counted, what it held is free."""
        self._kept.forget(job.tenant, job.prompt_id, Kind.ITEM)
        self._slots.free_job(job.prompt_id)
        if job.started_at_s is None or (job.outcome is Outcome.LOST and not job.gpu_s):
            self._fair.release(job.prompt_id)
        else:
            gpu_s = job.gpu_s if job.gpu_s > 0 else None
            self._fair.finish(job.prompt_id, gpu_s, is_complete=job.outcome is Outcome.COMPLETED)
        if job.gpu_s > 0:
            self._tasks.start(self._budgets.add(job.tenant, job.run_id, job.gpu_s, job.ended_at_s), "gpu seconds")

    def synced(self) -> None:
        """The registry is as ComfyUI's queue is: also what another replica, or this gate before a restart, has sent."""
        active = [job for job in self._registry.active() if job.state is not JobState.CLAIMED]
        for job in active:
            if not self._fair.knows(job.prompt_id):
                self._fair.adopt(Listed(job.number, job.tenant, job.prompt_id, job.workflow))
            if job.state is JobState.RUNNING:
                self._fair.start(job.prompt_id)
        self._slots.reconcile({job.prompt_id: job.tenant for job in active})

    def rebuilt(self) -> None:
        """After a (re)connection: the queue is read anew."""
        active = [job for job in self._registry.active() if job.state is not JobState.CLAIMED]
        self._fair.rebuild(
            (Listed(job.number, job.tenant, job.prompt_id, job.workflow) for job in active),
            [job.prompt_id for job in active if job.state is JobState.RUNNING],
        )
        self.synced()

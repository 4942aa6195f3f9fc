"""A tenant's jobs as the API tells of them: what stands in the gate's database, and how far those are that run. ComfyUI is not asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from policy.principal import TenantId
from policy.v2.assets import Asset
from policy.v2.effects import After, JobPage, ListJobs
from policy.v2.jobs import JobError, JobView, Status
from policy.v2.progress import Progress
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.registry import JobRegistry
from proxy.limits.keyed_semaphore import KeyedSemaphore
from proxy.persistence.operations import Database
from proxy.v2.failures import error_of
from proxy.v2.job_operations import CANCELING, StoredJob, list_some, read_job
from proxy.v2.job_status import place_in_queue, status_of, status_of_job
from proxy.v2.kept_jobs import KeptJobs

_STATES: Final[dict[Status, tuple[str, ...]]] = {
    Status.QUEUED: (StoredState.WAITING, StoredState.DISPATCHED),
    Status.RUNNING: (StoredState.RUNNING,),
    Status.CANCELING: (CANCELING,),
    Status.SUCCEEDED: (StoredState.SUCCEEDED,),
    Status.FAILED: (StoredState.FAILED,),
    Status.CANCELED: (StoredState.CANCELED,),
}
_WITH_RESULTS: Final = frozenset({StoredState.SUCCEEDED, StoredState.FAILED})


class Followed(Protocol):
    """What is known of jobs that run (proxy/v2/job_streams.py)."""

    async def look_at(self, tenant: TenantId, prompt_id: str) -> tuple[Progress | None, tuple[Asset, ...]]:
        """How far it is, None where nothing is known of it yet; and what it has made so far."""
        ...


class Results(Protocol):
    """What jobs made (proxy/v2/outputs.py)."""

    async def measure(self, tenant: TenantId, row: JobRow) -> tuple[tuple[Asset, ...], JobError | None]:
        """Of a job that has ended; kept when it is known for good. Raises DatabaseUnavailable."""
        ...


class JobViews:
    """history_s: how long an ended job is kept. Every method raises DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        followed: Followed,
        results: Results,
        history_s: Callable[[], float],
    ) -> None:
        self._database = database
        self._registry = registry
        self._followed = followed
        self._results = results
        self._history_s = history_s
        self._kept = KeptJobs()
        # SECURITY: one at a time of each tenant (tests/security/test_long_lists.py).
        self._lists = KeyedSemaphore()

    def forget(self, prompt_id: str) -> None:
        """Something that the job made is deleted: it is read anew."""
        self._kept.forget(prompt_id)

    async def has(self, tenant: TenantId, prompt_id: str) -> bool:
        """Whether the tenant has this job; asked as `find` asks."""
        return await self._database.read(read_job, tenant, prompt_id) is not None

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        """None for what is not the tenant's.

        SECURITY: only one's own job is ever answered from memory, so that another's takes as long as none (tests/proxy/v2/test_job_views.py).
        """
        job = self._registry.job(prompt_id)
        kept = self._kept.of(job) if job is not None and job.tenant == tenant else None
        if job is not None and kept is not None:
            if job.state is not JobState.ENDED:
                return await self._following(tenant, job, kept.labels)
            if kept.row.has_ended:
                return self._ended(kept)
        return await self._read(tenant, prompt_id)

    async def accepted(self, tenant: TenantId, prompt_id: str, labels: Mapping[str, str]) -> JobView | None:
        """A job of the tenant's that was taken just now, with these labels."""
        job = self._registry.job(prompt_id)
        if job is None or job.tenant != tenant or job.state is JobState.ENDED:
            return await self.find(tenant, prompt_id)
        return await self._following(tenant, job, labels)

    async def _read(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        stored = await self._database.read(read_job, tenant, prompt_id)
        if stored is None:
            return None
        if not stored.row.has_ended:
            return await self._unfinished(tenant, stored)
        if not stored.is_measured and stored.row.state in _WITH_RESULTS:
            outputs, error = await self._results.measure(tenant, stored.row)
            return self._view(stored.row, stored.labels, outputs=outputs, error=error)
        self._kept.put(stored)
        return self._ended(stored)

    def _ended(self, stored: StoredJob) -> JobView:
        return self._kept.view(stored, self._history_s(), self._view_of_ended)

    def _view_of_ended(self, stored: StoredJob) -> JobView:
        return self._view(stored.row, stored.labels, outputs=tuple(stored.outputs), error=error_of(stored.failure))

    async def page(self, tenant: TenantId, asked: ListJobs) -> JobPage:
        states = [state for status in asked.statuses for state in _STATES[status]]
        rows: list[tuple[JobRow, dict[str, str]]] = []
        wanted, rest = asked.limit + 1, asked.after
        async with self._lists.of(tenant):
            while len(rows) < wanted:
                more = wanted - len(rows)
                found, rest = await self._database.read(list_some, tenant, states, asked.labels, more, rest)
                rows += found
                if rest is None:
                    break
        shown = tuple(self._view(row, labels) for row, labels in rows[: asked.limit])
        has_more = len(rows) > asked.limit
        return JobPage(shown, After(shown[-1].created_at_s, shown[-1].prompt_id) if has_more else None)

    async def _unfinished(self, tenant: TenantId, stored: StoredJob) -> JobView:
        self._kept.put(stored)
        prompt_id, own = stored.row.prompt_id, self._registry.of(tenant)
        is_waiting = stored.row.state in (StoredState.WAITING, StoredState.DISPATCHED)
        progress, outputs = await self._followed.look_at(tenant, prompt_id)
        return self._view(
            stored.row,
            stored.labels,
            queue_position=own.position_of(prompt_id) if is_waiting else None,
            progress=None if is_waiting else progress,
            outputs=outputs,
        )

    async def _following(self, tenant: TenantId, job: Job, labels: Mapping[str, str]) -> JobView:
        """Of a job that has not ended, as it is in memory."""
        place = place_in_queue(self._registry.of(tenant), job)
        progress, outputs = await self._followed.look_at(tenant, job.prompt_id)
        return JobView(
            prompt_id=job.prompt_id,
            status=status_of_job(job),
            created_at_s=job.claimed_at_s,
            keep_until_s=job.claimed_at_s + self._history_s(),
            started_at_s=job.started_at_s,
            queue_position=place,
            progress=progress if place is None else None,
            outputs=outputs,
            labels=labels,
        )

    def _view(self, row: JobRow, labels: dict[str, str], **more: Any) -> JobView:
        return JobView(
            prompt_id=row.prompt_id,
            status=status_of(row),
            created_at_s=row.created_at_s,
            keep_until_s=(row.ended_at_s or row.created_at_s) + self._history_s(),
            started_at_s=row.started_at_s,
            ended_at_s=row.ended_at_s,
            labels=labels,
            **more,
        )

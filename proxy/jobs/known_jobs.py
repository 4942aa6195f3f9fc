"""Which jobs there are: by id, by tenant and state, by client. Looking only; proxy/jobs/registry.py says how they come, change and go."""

from __future__ import annotations

from typing import Final

from policy.principal import TenantId
from proxy.jobs.index import TenantJobs
from proxy.jobs.job import Job, JobState
from proxy.jobs.tally import Tally
from proxy.jobs.temp_files import WrittenAt
from proxy.jobs.temp_folders import TempFolders

MAX_LOOKED_BACK: Final = 50


class KnownJobs:
    """Those of all tenants."""

    def __init__(self, written_at: WrittenAt) -> None:
        self._jobs: dict[str, Job] = {}
        self._active: dict[str, Job] = {}
        self.tenants: dict[TenantId, TenantJobs] = {}
        self._ended: dict[str, None] = {}
        self.temp_files = TempFolders(written_at)
        self.tally = Tally()
        self._sequence = 0

    def of(self, tenant: TenantId) -> TenantJobs:
        jobs = self.tenants.get(tenant)
        if jobs is None:
            jobs = self.tenants[tenant] = TenantJobs(tenant, self.temp_files.has, self._stopped_after_s)
        return jobs

    def job(self, prompt_id: str) -> Job | None:
        return self._jobs.get(prompt_id)

    def active(self) -> list[Job]:
        """Jobs that have not ended."""
        return list(self._active.values())

    def given_to(self, comfyui: str) -> list[Job]:
        """Jobs that this ComfyUI has, or is being given."""
        return [job for job in self.tally.given.values() if job.comfyui == comfyui]

    def count_active(self) -> int:
        return len(self._active)

    def working_clients(self, tenant: TenantId) -> frozenset[str]:
        """Whose jobs wait or run."""
        return frozenset(job.client_id for job in self._active.values() if job.tenant == tenant and job.client_id)

    def has_unnamed(self, tenant: TenantId) -> bool:
        """Whether an unfinished job of the tenant's came without a client id."""
        return any(job.tenant == tenant and not job.client_id for job in self._active.values())

    def last_of(self, tenant: TenantId, client_id: str) -> Job | None:
        """The job of this client that ended last, when it is among the tenant's newest."""
        newest = (self._jobs[prompt_id] for prompt_id in reversed(self.of(tenant).finished()[-MAX_LOOKED_BACK:]))
        return next((job for job in newest if job.client_id == client_id), None)

    @property
    def is_busy(self) -> bool:
        return bool(self._active)

    def ended(self) -> list[str]:
        """Jobs whose end is known, oldest end first."""
        return list(self._ended)

    def _stopped_after_s(self, prompt_id: str) -> int | None:
        job = self._jobs.get(prompt_id)
        return None if job is None else job.stopped_after_s

    def _add(self, job: Job) -> None:
        if not job.sequence:
            self._sequence += 1
            job.sequence = self._sequence
        self._jobs[job.prompt_id] = self._active[job.prompt_id] = job
        self._index(job)

    def _index(self, job: Job) -> None:
        state = job.state
        has_ended = state is JobState.ENDED
        if not has_ended:
            self.tally.note(job)
        self.of(job.tenant).put(
            job.prompt_id,
            job.order,
            is_running=state is JobState.RUNNING,
            has_ended=has_ended or job.over_at_s is not None,
            is_deleted=job.is_deleted,
        )

    def _drop(self, job: Job) -> None:
        del self._jobs[job.prompt_id]
        self.of(job.tenant).remove(job.prompt_id)
        self._active.pop(job.prompt_id, None)
        self.tally.drop(job)
        self._ended.pop(job.prompt_id, None)

    def _close(self, job: Job) -> None:
        """It has ended."""
        self._active.pop(job.prompt_id, None)
        self.tally.drop(job)
        self._index(job)
        self._ended[job.prompt_id] = None

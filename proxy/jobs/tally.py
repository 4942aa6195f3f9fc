"""How many jobs wait and are with ComfyUI, and what they will cost: counted as they change, so that no submission looks through those that wait."""

from __future__ import annotations

from typing import Final, NamedTuple

from policy.principal import TenantId
from proxy.jobs.job import GIVEN, Job, JobState

MAX_CHANGED: Final = 10_000
"""Of more it is not told which they are."""


class _Counted(NamedTuple):
    tenant: TenantId
    is_waiting: bool
    cost_s: float


class Tally:
    """Of the jobs that have not ended. given: those with ComfyUI, or on their way there, by id. waiting: how many are on disk, and not with ComfyUI."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Counted] = {}
        self._costs_s: dict[TenantId, float] = {}
        self.given: dict[str, Job] = {}
        self.waiting = 0
        self._changed: set[str] | None = None

    def note(self, job: Job) -> None:
        """It is new, or has changed."""
        self.drop(job)
        counted = _Counted(job.tenant, job.state is JobState.WAITING, job.cost_s)
        self._jobs[job.prompt_id] = counted
        if job.state in GIVEN:
            self.given[job.prompt_id] = job
        self.waiting += counted.is_waiting
        self._costs_s[job.tenant] = self._costs_s.get(job.tenant, 0.0) + counted.cost_s

    def drop(self, job: Job) -> None:
        """It has ended, or is gone."""
        if self._changed is not None:
            self._changed.add(job.prompt_id)
            self._changed = self._changed if len(self._changed) <= MAX_CHANGED else None
        counted = self._jobs.pop(job.prompt_id, None)
        if counted is not None:
            self.given.pop(job.prompt_id, None)
            self.waiting -= counted.is_waiting
            self._costs_s[counted.tenant] -= counted.cost_s

    def take_changed(self) -> set[str] | None:
        """Ids of jobs that are new, have changed, have ended or are gone since it was asked last; None the first time, and when there are too many."""
        changed, self._changed = self._changed, set()
        return changed

    def cost_s(self, tenant: TenantId) -> float:
        """GPU seconds that the tenant's unfinished jobs will probably take."""
        return self._costs_s.get(tenant, 0.0)

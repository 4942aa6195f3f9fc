"""How many jobs wait and are with ComfyUI, and what they will cost: counted as they change, so that no submission looks through those that wait."""

from __future__ import annotations

from typing import NamedTuple

from policy.principal import TenantId
from proxy.jobs.job import GIVEN, Job, JobState


class _Counted(NamedTuple):
    tenant: TenantId
    is_given: bool
    is_waiting: bool
    cost_s: float


class Tally:
    """Of the jobs that have not ended. given: with ComfyUI, or on their way there. waiting: on disk, and not with ComfyUI."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Counted] = {}
        self._costs_s: dict[TenantId, float] = {}
        self.given = 0
        self.waiting = 0

    def note(self, job: Job) -> None:
        """It is new, or has changed."""
        self.drop(job)
        counted = _Counted(job.tenant, job.state in GIVEN, job.state is JobState.WAITING, job.cost_s)
        self._jobs[job.prompt_id] = counted
        self.given += counted.is_given
        self.waiting += counted.is_waiting
        self._costs_s[job.tenant] = self._costs_s.get(job.tenant, 0.0) + counted.cost_s

    def drop(self, job: Job) -> None:
        """It has ended, or is gone."""
        counted = self._jobs.pop(job.prompt_id, None)
        if counted is not None:
            self.given -= counted.is_given
            self.waiting -= counted.is_waiting
            self._costs_s[counted.tenant] -= counted.cost_s

    def cost_s(self, tenant: TenantId) -> float:
        """GPU seconds that the tenant's unfinished jobs will probably take."""
        return self._costs_s.get(tenant, 0.0)

"""Jobs that a ComfyUI was given, as the database has it, and has not got, as far as this gate has seen: another gate is just sending them, has died before
it did, or has still to find out that ComfyUI was restarted. Most of them wait again in a moment, where they stood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from policy.rules.prompt import LAST_PLACE
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry

SETTLED_S: Final = 20.0
"""The lease of a gate that died has ended by then, and another one has found out. Whoever hears nothing for longer is not waited for."""


class UnsettledJobs:
    """Nothing else of their tenants is given meanwhile, so that it does not come before them; who else waits is given."""

    def __init__(self, registry: JobRegistry, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._clock = clock

    def tenants(self) -> frozenset[TenantId]:
        """Whose they are."""
        return frozenset(job.tenant for job in self._registry.tally.given.values() if self._is_unsettled(job))

    def keep(self, tenant: TenantId) -> bool:
        """Whether a job of this tenant's that goes to the first ComfyUI now would pass one of them, or run where nobody sees whether it has begun."""
        first = self._registry.comfyuis[0]
        is_unseen = not self._registry.connections.is_there(first) and bool(self._registry.given_to(first))
        return is_unseen or tenant in self.tenants()

    def _is_unsettled(self, job: Job) -> bool:
        """What this gate sends itself it sends in its order. What is only tried has no order (proxy/jobs/trial.py)."""
        comfyui, connections = job.comfyui, self._registry.connections
        if job.state is JobState.SENT or job.number >= LAST_PLACE:
            return False
        if job.seen_in == connections.to(comfyui) and connections.is_there(comfyui):
            return False
        return min(self._clock() - job.given_at_s, connections.lasts_s(comfyui)) < SETTLED_S

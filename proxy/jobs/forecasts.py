"""What a tenant is told of its unfinished jobs: which run, and when the others will probably begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from policy.forecast import Expected, starts_of
from policy.principal import TenantId
from proxy.jobs.job import GIVEN, Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import fair_tags
from proxy.persistence.operations import Database, DatabaseUnavailable

MAX_SHOWN: Final = 100


class JobForecast(NamedTuple):
    """state: `running` or `waiting`. position: among the tenant's own that wait, from 1; 0 for what runs.

    starts_at_s: Unix time, None for what has begun, and where nobody can tell.
    """

    prompt_id: str
    state: str
    position: int
    starts_at_s: float | None


class JobForecasts:
    """weights: by tenant."""

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        weights: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._registry = registry
        self._weights = weights
        self._clock = clock

    async def of(self, tenant: TenantId) -> tuple[JobForecast, ...]:
        """The tenant's unfinished jobs in the order in which they run, MAX_SHOWN at most."""
        own = self._registry.of(tenant)
        starts = await self._starts(tenant)
        running = [JobForecast(prompt_id, "running", 0, None) for prompt_id in own.running()]
        waiting = [
            JobForecast(prompt_id, "waiting", position, starts.get(prompt_id))
            for position, prompt_id in enumerate(own.pending(), 1)
        ]
        return (*running, *waiting)[:MAX_SHOWN]

    async def _starts(self, tenant: TenantId) -> dict[str, float]:
        """Unix times, by id; none while the database cannot be read."""
        try:
            virtual_time, tags = await self._database.read(fair_tags)
        except DatabaseUnavailable:
            return {}
        now_s, busy_s = self._clock(), 0.0
        found: dict[str, float] = {}
        jobs = self._registry.active()
        for job in sorted((job for job in jobs if job.state in GIVEN), key=lambda job: job.number):
            if job.state is not JobState.RUNNING and job.tenant == tenant:
                found[job.prompt_id] = now_s + busy_s
            busy_s += _rest_s(job, now_s)
        waiting: dict[TenantId, list[Expected]] = {}
        for job in sorted((job for job in jobs if job.state is JobState.WAITING), key=lambda job: job.order):
            waiting.setdefault(job.tenant, []).append(Expected(job.prompt_id, job.cost_s, job.sequence))
        starts = starts_of(tenant, waiting, tags, virtual_time, self._weights(), busy_s)
        return found | {prompt_id: now_s + in_s for prompt_id, in_s in starts.items()}


def _rest_s(job: Job, now_s: float) -> float:
    gone_s = 0.0 if job.started_at_s is None else now_s - job.started_at_s
    return max(0.0, job.cost_s - gone_s)

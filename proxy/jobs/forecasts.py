"""What a tenant is told of its unfinished jobs: which run, and when the others will probably begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from policy.forecast import Expected, start_of, starts_of
from policy.principal import TenantId
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import fair_tags
from proxy.jobs.store_state import drained
from proxy.persistence.operations import Database, DatabaseUnavailable

MAX_SHOWN: Final = 100
READ_EACH_S: Final = 1.0
"""How old the tags may be of which one start is told: they move with each job that is given."""


class JobForecast(NamedTuple):
    """state: `running` or `waiting`. position: among the tenant's own that wait, from 1; 0 for what runs.

    starts_at_s: Unix time, None for what has begun, and where nobody can tell.
    """

    prompt_id: str
    state: str
    position: int
    starts_at_s: float | None


class _Read(NamedTuple):
    """drained: names of those of several ComfyUIs that are given no jobs."""

    virtual_time: float
    tags: dict[TenantId, float]
    drained: frozenset[str]


class JobForecasts:
    """weights: by tenant. comfyuis: names of those that can be reached."""

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        weights: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
        comfyuis: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._comfyuis = comfyuis
        self._database = database
        self._registry = registry
        self._weights = weights
        self._clock = clock
        self._read_at_s = -READ_EACH_S
        self._last = _Read(0.0, {}, frozenset())

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

    async def start_of(self, tenant: TenantId, prompt_id: str) -> float | None:
        """As `of` tells it of one job, in Unix time; None too for what is not the tenant's. It costs as much as what comes before the job."""
        own, job = self._registry.of(tenant), self._registry.job(prompt_id)
        if job is None or job.tenant != tenant or own.place_of(prompt_id) - own.count_finished() > MAX_SHOWN:
            return None
        now_s = self._clock()
        if job.state is not JobState.WAITING:
            return self._given(tenant, now_s, self._last.drained)[0].get(prompt_id)
        if not self._read_at_s <= now_s < self._read_at_s + READ_EACH_S:
            try:
                self._last = await self._read()
            except DatabaseUnavailable:
                return None
            self._read_at_s = now_s
        virtual_time, tags, out = self._last
        _, busy_s = self._given(tenant, now_s, out)
        waiting, expected = self._waiting(), Expected(prompt_id, job.cost_s, job.sequence)
        if not busy_s:
            return None
        in_s = start_of(expected, tenant, waiting, tags, virtual_time, self._weights(), busy_s)
        return None if in_s is None else now_s + in_s

    async def _starts(self, tenant: TenantId) -> dict[str, float]:
        """Unix times, by id; none while the database cannot be read."""
        try:
            virtual_time, tags, out = await self._read()
        except DatabaseUnavailable:
            return {}
        now_s = self._clock()
        found, busy_s = self._given(tenant, now_s, out)
        if not busy_s:
            return found
        waiting = {each: list(jobs) for each, jobs in self._waiting().items()}
        starts = starts_of(tenant, waiting, tags, virtual_time, self._weights(), busy_s)
        return found | {prompt_id: now_s + in_s for prompt_id, in_s in starts.items()}

    async def _read(self) -> _Read:
        """Raises DatabaseUnavailable."""
        virtual_time, tags = await self._database.read(fair_tags)
        out = await self._database.read(drained) if self._registry.comfyuis.has_others else frozenset[str]()
        return _Read(virtual_time, tags, out)

    def _waiting(self) -> dict[TenantId, Iterator[Expected]]:
        """Those that wait outside ComfyUI, of the tenants that have jobs, in the order within each."""
        unfinished = ((tenant, jobs.pending()) for tenant, jobs in self._registry.tenants.items())
        return {tenant: self._expected(pending) for tenant, pending in unfinished if pending}

    def _expected(self, pending: Iterable[str]) -> Iterator[Expected]:
        for prompt_id in pending:
            job = self._registry.job(prompt_id)
            if job is not None and job.state is JobState.WAITING:
                yield Expected(prompt_id, job.cost_s, job.sequence)

    def _given(self, tenant: TenantId, now_s: float, out: Collection[str]) -> tuple[dict[str, float], list[float]]:
        """When those of the tenant's that a ComfyUI has and does not run yet will begin, in Unix time; and for how long each has something to
        do. out: those that are drained, and left out."""
        found: dict[str, float] = {}
        busy_s = dict.fromkeys(self._comfyuis() or self._registry.comfyuis, 0.0)
        for job in sorted(self._registry.tally.given.values(), key=lambda job: job.number):
            in_s = busy_s.get(job.comfyui, 0.0)
            if job.state is not JobState.RUNNING and job.tenant == tenant:
                found[job.prompt_id] = now_s + in_s
            busy_s[job.comfyui] = in_s + _rest_s(job, now_s)
        return found, [left_s for comfyui, left_s in busy_s.items() if comfyui not in out]


def _rest_s(job: Job, now_s: float) -> float:
    gone_s = 0.0 if job.started_at_s is None else now_s - job.started_at_s
    return max(0.0, job.cost_s - gone_s)

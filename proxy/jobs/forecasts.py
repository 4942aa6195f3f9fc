"""What a tenant is told of its unfinished jobs: which run, and when the others will probably begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final, NamedTuple

from policy.forecast import MAX_STEPS, Busy, Expected, start_of, starts_of
from policy.placement import left_s
from policy.principal import TenantId
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_places import JobPlaces
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import fair_tags
from proxy.jobs.store_state import drained
from proxy.persistence.operations import Database, DatabaseUnavailable

MAX_SHOWN: Final = 100
_OF_OTHERS: Final = 10
"""Jobs of each other tenant of which it is looked where they may go."""
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
    """weights: by tenant. comfyuis: names of those that can be reached. places: where each job may go, where there are several."""

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        weights: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
        comfyuis: Callable[[], Collection[str]] = tuple,
        places: JobPlaces | None = None,
    ) -> None:
        self._places = places
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
                self._last = await self._read(tenant)
            except DatabaseUnavailable:
                return None
            self._read_at_s = now_s
        virtual_time, tags, out = self._last
        _, busy = self._given(tenant, now_s, out)
        expected = self._expect(job)
        in_s = start_of(expected, tenant, self._waiting(), tags, virtual_time, self._weights(), busy)
        return None if in_s is None else now_s + in_s

    async def _starts(self, tenant: TenantId) -> dict[str, float]:
        """Unix times, by id; none while the database cannot be read."""
        try:
            virtual_time, tags, out = await self._read(tenant)
        except DatabaseUnavailable:
            return {}
        now_s = self._clock()
        found, busy = self._given(tenant, now_s, out)
        waiting = {each: list(jobs) for each, jobs in self._waiting().items()}
        starts = starts_of(tenant, waiting, tags, virtual_time, self._weights(), busy)
        return found | {prompt_id: now_s + in_s for prompt_id, in_s in starts.items()}

    async def _read(self, tenant: TenantId) -> _Read:
        """tenant: who asks. Raises DatabaseUnavailable."""
        if self._places is not None and self._registry.comfyuis.has_others:
            await self._places.learn(self._database, self._first_ones(tenant))
        virtual_time, tags = await self._database.read(fair_tags)
        out = await self._database.read(drained) if self._registry.comfyuis.has_others else frozenset[str]()
        return _Read(virtual_time, tags, out)

    def _waiting(self) -> dict[TenantId, Iterator[Expected]]:
        """Those that wait outside ComfyUI, of the tenants that have jobs, in the order within each."""
        unfinished = ((tenant, jobs.pending()) for tenant, jobs in self._registry.tenants.items())
        return {tenant: self._expected(pending) for tenant, pending in unfinished if pending}

    def _expected(self, pending: Iterable[str]) -> Iterator[Expected]:
        return map(self._expect, self._waiting_among(pending))

    def _waiting_among(self, pending: Iterable[str]) -> Iterator[Job]:
        jobs, waits = map(self._registry.job, pending), JobState.WAITING
        return (job for job in jobs if job is not None and job.state is waits)

    def _expect(self, job: Job) -> Expected:
        places = None if self._places is None else self._places.of(job)
        return Expected(job.prompt_id, job.cost_s, job.sequence, places)

    def _first_ones(self, tenant: TenantId) -> Iterator[Job]:
        """Jobs that wait: the tenant's own, then those of others that may come before them."""
        yield from islice(self._waiting_among(self._registry.of(tenant).pending()), MAX_SHOWN)
        others = (jobs.pending() for each, jobs in self._registry.tenants.items() if each != tenant)
        each_first = (islice(self._waiting_among(pending), _OF_OTHERS) for pending in others)
        yield from islice(chain.from_iterable(each_first), MAX_STEPS)

    def _given(self, tenant: TenantId, now_s: float, out: Collection[str]) -> tuple[dict[str, float], Busy]:
        """When those of the tenant's that a ComfyUI has and does not run yet will begin, in Unix time; and for how long each has something to
        do. out: those that are drained, and left out."""
        found: dict[str, float] = {}
        there = self._comfyuis() or self._registry.comfyuis
        busy_s = dict.fromkeys(there, 0.0)
        speeds = {} if self._places is None else self._places.speeds()
        for job in sorted(self._registry.tally.given.values(), key=lambda job: job.number):
            in_s = busy_s.get(job.comfyui, 0.0)
            if job.state is not JobState.RUNNING and job.tenant == tenant:
                found[job.prompt_id] = now_s + in_s
            busy_s[job.comfyui] = in_s + _rest_s(job, now_s, speeds.get(job.comfyui, 1.0))
        return found, Busy({comfyui: busy_s[comfyui] for comfyui in there if comfyui not in out}, speeds)


def _rest_s(job: Job, now_s: float, speed: float) -> float:
    gone_s = 0.0 if job.started_at_s is None else now_s - job.started_at_s
    return left_s(job.cost_s / speed, gone_s)

"""ComfyUI's one worker before the gate's queue, on a clock of its own: whose job goes next is what `policy.fairness` says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policy.fairness import Head, correction_of, next_of, span_of, start_tag, time_at_rest
from policy.principal import TenantId

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
TENANTS = (A, B, C)


class Arrival(NamedTuple):
    """estimate_s: what the job is expected to take; as long as it takes, when None."""

    at_s: float
    tenant: TenantId
    cost_s: float
    priority: float = 0.0
    estimate_s: float | None = None


class Waiting(NamedTuple):
    """In the order within a tenant."""

    rank: float
    sequence: int
    tenant: TenantId
    cost_s: float
    estimate_s: float
    arrived_s: float

    @property
    def prompt_id(self) -> str:
        return f"job-{self.sequence}"


class Run(NamedTuple):
    prompt_id: str
    tenant: TenantId
    arrived_s: float
    started_s: float
    ended_s: float
    cost_s: float


@dataclass
class Worker:
    """Gives ComfyUI one job after another. weights: 1 where there is none. The tags and the virtual time are what the gate keeps on disk."""

    weights: Mapping[TenantId, float] = field(default_factory=dict)
    now_s: float = 0.0
    virtual_time: float = 0.0
    tags: dict[TenantId, float] = field(default_factory=dict)
    waiting: dict[TenantId, list[Waiting]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    sequences: itertools.count[int] = field(default_factory=itertools.count)

    def submit(
        self,
        tenant: TenantId,
        cost_s: float,
        *,
        priority: float = 0.0,
        estimate_s: float | None = None,
        at_s: float | None = None,
    ) -> str:
        expected_s = cost_s if estimate_s is None else estimate_s
        arrived_s = self.now_s if at_s is None else at_s
        job = Waiting(-priority, next(self.sequences), tenant, cost_s, expected_s, arrived_s)
        self.waiting.setdefault(tenant, []).append(job)
        return job.prompt_id

    def give(self) -> Waiting | None:
        """Who goes to ComfyUI now, if anybody waits; its tenant is charged what the job is expected to take."""
        firsts = {tenant: min(jobs) for tenant, jobs in self.waiting.items() if jobs}
        heads = [
            Head(tenant, self.tags.get(tenant, 0.0), job.prompt_id, job.sequence) for tenant, job in firsts.items()
        ]
        head = next_of(heads, self.virtual_time)
        if head is None:
            return None
        job = firsts[head.tenant]
        self.waiting[head.tenant].remove(job)
        self.virtual_time = start_tag(head.finish_tag, self.virtual_time)
        self.tags[head.tenant] = self.virtual_time + self.span_of(job)
        return job

    def span_of(self, job: Waiting) -> float:
        return span_of(job.estimate_s, self.weights.get(job.tenant, 1.0))

    def take(self, job: Waiting, waiting: list[Arrival]) -> None:
        """Runs it, while others may arrive; its tenant pays for what it took in truth."""
        started_s, self.now_s = self.now_s, self.now_s + job.cost_s
        self.admit(waiting)
        self.tags[job.tenant] += correction_of(job.estimate_s, self.span_of(job), job.cost_s)
        self.runs.append(Run(job.prompt_id, job.tenant, job.arrived_s, started_s, self.now_s, job.cost_s))

    def run(self, arrivals: Sequence[Arrival] = (), *, jobs: int | None = None) -> list[Run]:
        """Runs everything, or so many jobs; arrivals come at their times, also while a job runs. → all that ever ran."""
        coming = sorted(arrivals, key=lambda arrival: arrival.at_s)
        for _ in itertools.count() if jobs is None else range(jobs):
            if coming and not any(self.waiting.values()):
                self.rest()
                self.now_s = max(self.now_s, coming[0].at_s)
            self.admit(coming)
            job = self.give()
            if job is None:
                self.rest()
                break
            self.take(job, coming)
        return self.runs

    def rest(self) -> None:
        self.virtual_time = time_at_rest(self.tags.values(), self.virtual_time)

    def admit(self, coming: list[Arrival]) -> None:
        while coming and coming[0].at_s <= self.now_s:
            arrival = coming.pop(0)
            self.submit(
                arrival.tenant,
                arrival.cost_s,
                priority=arrival.priority,
                estimate_s=arrival.estimate_s,
                at_s=arrival.at_s,
            )

"""The jobs that have a number and have not ended, summed up by tenant, so that no new job looks through those that wait."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from policy.principal import TenantId

# Nobody reaches this by queueing fairly: a number somebody gave a job by hand says nothing about shares.
MAX_TAG: Final = 2.0**44


@dataclass(slots=True)
class NumberedJob:
    tenant: TenantId
    number: float
    cost_s: float
    span: float
    workflow: str
    priority: float = 0.0
    is_running: bool = False

    @property
    def is_pending(self) -> bool:
        return not self.is_running


@dataclass(slots=True)
class _Backlog:
    """One tenant's. numbers: sorted, without those beyond MAX_TAG."""

    count: int = 0
    cost_s: float = 0.0
    pending_span: float = 0.0
    numbers: list[float] = field(default_factory=list)

    def add(self, job: NumberedJob) -> None:
        """A job that waits."""
        self.count += 1
        self.cost_s += job.cost_s
        self.pending_span += job.span
        if job.number < MAX_TAG:
            insort(self.numbers, job.number)

    def remove(self, job: NumberedJob) -> None:
        self.count -= 1
        self.cost_s -= job.cost_s
        if job.is_pending:
            self.pending_span -= job.span
        if job.number < MAX_TAG:
            del self.numbers[bisect_left(self.numbers, job.number)]


class NumberedJobs:
    """By prompt id; no two have one number."""

    def __init__(self) -> None:
        self._jobs: dict[str, NumberedJob] = {}
        self._backlogs: dict[TenantId, _Backlog] = {}
        self.numbers: set[float] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[NumberedJob]:
        return iter(self._jobs.values())

    def get(self, prompt_id: str) -> NumberedJob | None:
        return self._jobs.get(prompt_id)

    def clear(self) -> None:
        self._jobs.clear()
        self._backlogs.clear()
        self.numbers.clear()

    def insert(self, prompt_id: str, job: NumberedJob) -> float:
        """Its number, which is the next free one."""
        while job.number in self.numbers:
            job.number = math.nextafter(job.number, math.inf)
        self.keep(prompt_id, job)
        return job.number

    def keep(self, prompt_id: str, job: NumberedJob) -> None:
        """A job whose number is a fact already."""
        self._jobs[prompt_id] = job
        self.numbers.add(job.number)
        backlog = self._backlogs.get(job.tenant)
        if backlog is None:
            backlog = self._backlogs[job.tenant] = _Backlog()
        backlog.add(job)

    def start(self, job: NumberedJob) -> None:
        self._backlogs[job.tenant].pending_span -= job.span
        job.is_running = True

    def remove(self, prompt_id: str) -> NumberedJob | None:
        job = self._jobs.pop(prompt_id, None)
        if job is not None:
            self.numbers.discard(job.number)
            backlog = self._backlogs[job.tenant]
            backlog.remove(job)
            if not backlog.count:
                del self._backlogs[job.tenant]  # and with it what rounding left in its sums
        return job

    def pending(self) -> list[NumberedJob]:
        """By number."""
        return sorted((job for job in self._jobs.values() if job.is_pending), key=lambda job: job.number)

    def tenants(self) -> list[TenantId]:
        """Who has unfinished jobs."""
        return list(self._backlogs)

    def cost_s(self, tenant: TenantId) -> float:
        """Estimated GPU seconds of the tenant's unfinished jobs."""
        backlog = self._backlogs.get(tenant)
        return 0.0 if backlog is None else backlog.cost_s

    def pending_span(self, tenant: TenantId) -> float:
        """What the tenant's pending jobs add to its finish tag."""
        backlog = self._backlogs.get(tenant)
        return 0.0 if backlog is None else backlog.pending_span

    def last_number(self, tenant: TenantId) -> float:
        """The largest of the tenant's numbers, -inf where it has none."""
        backlog = self._backlogs.get(tenant)
        return backlog.numbers[-1] if backlog is not None and backlog.numbers else -math.inf

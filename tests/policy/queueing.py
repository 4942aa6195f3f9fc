"""ComfyUI's one worker, on a clock of its own: it takes the smallest number, as ComfyUI's queue does."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policy.costs import Costs
from policy.fairness import FairQueue
from policy.principal import TenantId

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
TENANTS = (A, B, C)


class Arrival(NamedTuple):
    at_s: float
    tenant: TenantId
    cost_s: float
    priority: float = 0.0


class Run(NamedTuple):
    prompt_id: str
    tenant: TenantId
    arrived_s: float
    started_s: float
    ended_s: float
    cost_s: float


@dataclass
class Worker:
    """ComfyUI's one worker and its queue, on a clock of its own."""

    queue: FairQueue
    now_s: float = 0.0
    pending: list[tuple[float, str, TenantId, float, float]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def submit(self, tenant: TenantId, cost_s: float, *, priority: float = 0.0, at_s: float | None = None) -> str:
        prompt_id = f"job-{next(self.ids)}"
        number = self.queue.claim(tenant, prompt_id, workflow_of(cost_s), priority)
        heapq.heappush(self.pending, (number, prompt_id, tenant, cost_s, self.now_s if at_s is None else at_s))
        return prompt_id

    def run(self, arrivals: Sequence[Arrival] = ()) -> list[Run]:
        """Runs everything; arrivals come at their times, also while a job runs."""
        waiting = sorted(arrivals)
        while waiting or self.pending:
            if not self.pending:
                self.now_s = max(self.now_s, waiting[0].at_s)
            self.admit(waiting)
            _, prompt_id, tenant, cost_s, arrived_s = heapq.heappop(self.pending)
            self.queue.start(prompt_id)
            started_s, self.now_s = self.now_s, self.now_s + cost_s
            self.admit(waiting)
            self.queue.finish(prompt_id, cost_s)
            self.runs.append(Run(prompt_id, tenant, arrived_s, started_s, self.now_s, cost_s))
        return self.runs

    def admit(self, waiting: list[Arrival]) -> None:
        while waiting and waiting[0].at_s <= self.now_s:
            arrival = waiting.pop(0)
            self.submit(arrival.tenant, arrival.cost_s, priority=arrival.priority, at_s=arrival.at_s)


def workflow_of(cost_s: float) -> str:
    return f"takes {cost_s}"


def measured(*costs_s: float) -> Costs:
    costs = Costs()
    for cost_s in costs_s:
        for tenant in (A, B, C):
            costs.measure(tenant, workflow_of(cost_s), cost_s)
    return costs

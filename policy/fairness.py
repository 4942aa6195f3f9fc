"""Start-time fair queueing over tenants, written as ComfyUI's own queue numbers: the smallest number runs next.

A job's number is its start tag, in weighted GPU seconds: the later of the virtual time and the tenant's previous finish tag. The virtual time is
the start tag of the job that runs (P. Goyal, H. Vin, H. Cheng: Start-time Fair Queueing, SIGCOMM 1996). Trusts its caller for who the tenant is
and for what ComfyUI runs; has no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from policy.costs import Costs, bounded_cost
from policy.numbered_jobs import MAX_TAG, NumberedJob, NumberedJobs
from policy.principal import TenantId

MAX_CORRECTION_S: Final = 600.0
MIN_WEIGHT: Final = 0.001
MAX_WEIGHT: Final = 1000.0

# Not zero: the numbers just above it are denormal.
_ORIGIN: Final = 1.0
# Doubles are exact to 2**-20 s below this; beyond it the idle queue starts again at zero.
_REBASE_AT: Final = 2.0**32
# Where a priority job goes in the gap before the job it passes: low, so that hundreds of equals still find room behind it.
_GAP_SHARE: Final = 1 / 16
_TOLERANCE: Final = 1e-9


class Listed(NamedTuple):
    """An item of ComfyUI's queue. workflow: its hash where the caller knows it, for the cost."""

    number: float
    tenant: TenantId
    prompt_id: str
    workflow: str = ""


class FairQueue:
    """The state from which numbers are made: what is pending, each tenant's finish tag, the virtual time.

    A tenant that was idle comes next after the running job and one job of each neighbour, however many jobs those have submitted; backlogged tenants
    share the GPU by weight; a tenant without neighbours gets all of it.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, costs: Costs | None = None) -> None:
        self._weights: dict[str, float] = {}
        self._costs = Costs() if costs is None else costs
        self._jobs = NumberedJobs()
        self._finish_tags: dict[TenantId, float] = {}
        self._virtual_time = _ORIGIN
        # Priority jobs stand closer together than they cost: while some do, order is read from tags counted anew, not from numbers.
        self._is_crowded = False
        self.set_weights(weights or {})

    def __len__(self) -> int:
        """Jobs that are pending or running."""
        return len(self._jobs)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Weights by tenant, 1.0 for the others; for the numbers from now on. Raises ValueError outside 0.001 to 1000."""
        for tenant, weight in weights.items():
            if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
                raise ValueError(f"the weight of {tenant} must lie between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}")
        self._weights = dict(weights)

    def claim(self, tenant: TenantId, prompt_id: str, workflow: str = "", priority: float = 0.0) -> float:
        """The number of a new job; the same again for a job that has one.

        priority: above 0 the job passes the tenant's own pending jobs of lower priority, as far as it delays no job of a neighbour's.
        """
        known = self._jobs.get(prompt_id)
        if known is not None:
            return known.number
        cost_s = self._costs.estimate(tenant, workflow)
        span = cost_s / self._weights.get(tenant, 1.0)
        start_tag = max(self._virtual_time, self._finish_tags.get(tenant, 0.0))
        number = self._place(tenant, start_tag)
        if priority > 0 and (jumped := self._jump(tenant, number, priority)) is not None:
            number, self._is_crowded = jumped, True
        self._finish_tags[tenant] = start_tag + span
        job = NumberedJob(tenant, number, cost_s, span, workflow, priority)
        return self._jobs.insert(prompt_id, job)

    def adopt(self, item: Listed) -> None:
        """A job that stands in ComfyUI's queue and was not numbered here. Does nothing for a known one."""
        if self.knows(item.prompt_id) or not math.isfinite(item.number):
            return
        cost_s = self._costs.estimate(item.tenant, item.workflow)
        span = cost_s / self._weights.get(item.tenant, 1.0)
        self._jobs.keep(item.prompt_id, NumberedJob(item.tenant, item.number, cost_s, span, item.workflow))
        if item.number < MAX_TAG:
            self._finish_tags[item.tenant] = max(self._finish_tags.get(item.tenant, 0.0), item.number + span)

    def rebuild(self, listing: Iterable[Listed], running: Iterable[str] = ()) -> None:
        """Starts again from ComfyUI's queue, running jobs included: what the gate knew before is forgotten, but for costs and weights.

        running: the prompt ids of `listing` that run.
        """
        self._jobs.clear()
        self._finish_tags.clear()
        self._is_crowded = False
        for item in listing:
            self.adopt(item)
        # A newcomer comes before what waits, but not by its whole backlog: the virtual time is the first number that fair queueing may have given.
        self._virtual_time = min(
            (number for number in self._jobs.numbers if _ORIGIN <= number < MAX_TAG), default=_ORIGIN
        )
        for prompt_id in running:
            self.start(prompt_id)

    def start(self, prompt_id: str) -> None:
        """ComfyUI runs the job. Unknown ids are ignored."""
        job = self._jobs.get(prompt_id)
        if job is None or job.is_running:
            return
        tag = self._first_tag(job.tenant) if self._is_crowded else job.number
        self._jobs.start(job)
        # An admin's number lies below all: time does not go back.
        if tag < MAX_TAG:
            self._virtual_time = max(self._virtual_time, tag)

    def finish(self, prompt_id: str, gpu_s: float | None = None, *, is_complete: bool = True) -> None:
        """The job has ended. gpu_s: what it took, None when nobody knows. Unknown ids are ignored.

        is_complete: False for a job that failed or was interrupted: it is charged, but says nothing about what its like will take.
        """
        job = self._jobs.remove(prompt_id)
        if job is None:
            return
        if gpu_s is not None:
            if is_complete:
                self._costs.measure(job.tenant, job.workflow, gpu_s)
            if job.tenant in self._finish_tags:
                # The job was charged by its estimate. The bound keeps one stray measurement from shutting a tenant out.
                wrong_by_s = max(-MAX_CORRECTION_S, min(MAX_CORRECTION_S, bounded_cost(gpu_s) - job.cost_s))
                self._finish_tags[job.tenant] += wrong_by_s * job.span / job.cost_s
        self._rest_when_idle()

    def release(self, prompt_id: str) -> None:
        """The job never ran: refused upstream, deleted, lost. Its tenant is not charged. Unknown ids are ignored."""
        job = self._jobs.remove(prompt_id)
        if job is None:
            return
        if job.tenant in self._finish_tags:
            self._finish_tags[job.tenant] -= job.span
        self._rest_when_idle()

    def knows(self, prompt_id: str) -> bool:
        """Whether the job has a number, and has not ended."""
        return self._jobs.get(prompt_id) is not None

    def pending_cost_s(self, tenant: TenantId) -> float:
        """Estimated GPU seconds of the tenant's unfinished jobs."""
        return self._jobs.cost_s(tenant)

    def cost_s(self, prompt_id: str) -> float:
        """Estimated GPU seconds of one unfinished job, 0 for an unknown one."""
        job = self._jobs.get(prompt_id)
        return job.cost_s if job is not None else 0.0

    def _rest_when_idle(self) -> None:
        """At the end of a busy period nobody owes anything: the virtual time is the largest finish tag (SFQ's rule), or zero again after very long."""
        if self._jobs:
            return
        self._virtual_time = max([self._virtual_time, *self._finish_tags.values()])
        self._finish_tags.clear()
        self._is_crowded = False
        if self._virtual_time > _REBASE_AT:
            self._virtual_time = _ORIGIN

    def _first_tag(self, tenant: TenantId) -> float:
        """The start tag of the tenant's first pending job: its finish tag less what is pending."""
        return self._finish_tags.get(tenant, 0.0) - self._jobs.pending_span(tenant)

    def _place(self, tenant: TenantId, start_tag: float) -> float:
        """The start tag, after the tenant's own jobs; and before the jobs of neighbours whose priority jobs have pushed them beyond their share."""
        after_mine = math.nextafter(self._jobs.last_number(tenant), math.inf)
        number = max(start_tag, after_mine)
        ceiling = self._ceiling(tenant, start_tag) if self._is_crowded else math.inf
        if number < ceiling:
            return number
        floor = max((other for other in self._jobs.numbers if other < ceiling), default=ceiling - 1.0)
        return max(floor + (ceiling - floor) * _GAP_SHARE, after_mine)

    def _ceiling(self, tenant: TenantId, start_tag: float) -> float:
        """The number of the first neighbour's job that fair queueing would start after `start_tag`."""
        tags = {owner: self._first_tag(owner) for owner in self._jobs.tenants()}
        tolerance = _TOLERANCE * max(1.0, start_tag)
        ceiling = math.inf
        is_crowded = False
        for job in self._jobs.pending():
            tag = tags[job.tenant]
            if tag <= start_tag + tolerance:
                ceiling = math.inf
            elif ceiling == math.inf and job.tenant != tenant:
                ceiling = job.number
            is_crowded |= tag > job.number + tolerance
            tags[job.tenant] += job.span
        self._is_crowded = is_crowded
        return ceiling

    def _jump(self, tenant: TenantId, ordinary: float, priority: float) -> float | None:
        """A number before the tenant's own pending jobs of lower priority, but behind all that come before `ordinary`: no neighbour is delayed."""
        own = [job for job in self._jobs if job.tenant == tenant and job.is_pending]
        if not own:
            return None
        floor = min(self._virtual_time, *(job.number for job in own)) - 1.0
        for job in self._jobs:
            is_equal = job.tenant == tenant and job.priority >= priority
            is_neighbour = job.tenant != tenant and job.number < ordinary
            if job.is_running or is_equal or is_neighbour:
                floor = max(floor, job.number)
        passed = min((job.number for job in own if job.number > floor), default=None)
        if passed is None:
            return None
        number = floor + (passed - floor) * _GAP_SHARE
        return number if floor < number < passed else None

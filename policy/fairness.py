"""Start-time fair queueing over tenants: whose job goes to ComfyUI next.

Each tenant has a finish tag, in weighted GPU seconds: what it was given so far. Its first waiting job would start at the later of that tag and the
virtual time, which is the start tag of the job that was given last; the smallest start tag goes next (P. Goyal, H. Vin, H. Cheng: Start-time Fair
Queueing, SIGCOMM 1996). So a tenant that was idle comes next, however many jobs its neighbours have submitted; tenants with many jobs share the GPU by
weight; a tenant without neighbours gets all of it. Trusts its caller for who the tenant is; has no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from policy.costs import bounded_cost
from policy.principal import TenantId

MAX_CORRECTION_S: Final = 600.0


class Head(NamedTuple):
    """The first waiting job of a tenant. sequence: its place among all jobs as they were submitted."""

    tenant: TenantId
    finish_tag: float
    prompt_id: str
    sequence: int


def start_tag(finish_tag: float, virtual_time: float) -> float:
    """Where a job of a tenant with this finish tag begins; the virtual time moves there when it is given to ComfyUI."""
    return max(finish_tag, virtual_time)


def time_at_rest(finish_tags: Iterable[float], virtual_time: float) -> float:
    """The virtual time when nothing runs and nobody waits: whoever had the GPU until then owes nobody anything."""
    return max((virtual_time, *finish_tags))


def next_of(heads: Iterable[Head], virtual_time: float) -> Head | None:
    """Whose job goes next: of two that are equal, the one that was submitted first."""
    return min(heads, key=lambda head: order_of(head, virtual_time), default=None)


def order_of(head: Head, virtual_time: float) -> tuple[float, int]:
    """Who has the smallest goes next. Its first part is when the job begins."""
    return start_tag(head.finish_tag, virtual_time), head.sequence


def span_of(cost_s: float, weight: float) -> float:
    """What a job adds to its tenant's finish tag. cost_s: GPU seconds that it will probably take."""
    return cost_s / weight


def correction_of(cost_s: float, span: float, gpu_s: float) -> float:
    """What is added to the tag of a tenant whose job was charged by its estimate and took `gpu_s`.

    The bound keeps one stray measurement from shutting a tenant out.
    """
    wrong_by_s = max(-MAX_CORRECTION_S, min(MAX_CORRECTION_S, bounded_cost(gpu_s) - cost_s))
    return wrong_by_s * span / cost_s

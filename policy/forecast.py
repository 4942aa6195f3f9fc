"""When waiting jobs will probably begin: fair queueing played on, with what each job is expected to take. Has no clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from policy.fairness import Head, next_of, span_of, start_tag
from policy.principal import TenantId

MAX_STEPS: Final = 500
"""Jobs that are played on; what comes later has no estimate."""


class Expected(NamedTuple):
    """A waiting job. cost_s: GPU seconds that it will probably take; sequence: its place among all jobs as they were submitted."""

    prompt_id: str
    cost_s: float
    sequence: int


def starts_of(
    tenant: TenantId,
    waiting: Mapping[TenantId, Sequence[Expected]],
    finish_tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
    busy_s: Iterable[float],
) -> dict[str, float]:
    """Seconds from now, by the ids of the tenant's jobs. waiting: in the order within each tenant. busy_s: how long each ComfyUI has still to do with what
    it has; a job is expected at the one that is free first.

    The real order is found anew whenever a job is given: jobs that come or end meanwhile change it.
    """
    tags = {each: finish_tags.get(each, 0.0) for each in waiting}
    places = dict.fromkeys(waiting, 0)
    found: dict[str, float] = {}
    free_in_s = sorted(busy_s)
    for _ in range(MAX_STEPS):
        heads = [
            Head(each, tags[each], jobs[places[each]].prompt_id, jobs[places[each]].sequence)
            for each, jobs in waiting.items()
            if places[each] < len(jobs)
        ]
        head = next_of(heads, virtual_time)
        if head is None:
            break
        job = waiting[head.tenant][places[head.tenant]]
        virtual_time = start_tag(head.finish_tag, virtual_time)
        tags[head.tenant] = virtual_time + span_of(job.cost_s, weights.get(head.tenant, 1.0))
        places[head.tenant] += 1
        in_s = free_in_s[0]
        if head.tenant == tenant:
            found[job.prompt_id] = in_s
        heapq.heapreplace(free_in_s, in_s + job.cost_s)
    return found


def start_of(
    job: Expected,
    tenant: TenantId,
    waiting: Mapping[TenantId, Iterable[Expected]],
    finish_tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
    busy_s: Iterable[float],
) -> float | None:
    """As `starts_of`, of one job of its tenant's, from those alone that come before it; None where they are more than MAX_STEPS, or it is not there."""
    before = come_before(job, tenant, waiting, finish_tags, virtual_time, weights)
    free_in_s = sorted(busy_s)
    try:
        for steps, (_, earlier) in enumerate(before, 1):
            if steps >= MAX_STEPS:
                return None
            heapq.heapreplace(free_in_s, free_in_s[0] + earlier.cost_s)
    except LookupError:
        return None
    return free_in_s[0]


def come_before(
    job: Expected,
    tenant: TenantId,
    waiting: Mapping[TenantId, Iterable[Expected]],
    finish_tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
) -> Iterator[tuple[TenantId, Expected]]:
    """The jobs that are given before this one of its tenant's: the tenant's own first, then each other tenant's. Raises LookupError when it does not wait."""
    weight, begins_at = weights.get(tenant, 1.0), start_tag(finish_tags.get(tenant, 0.0), virtual_time)
    for earlier in waiting.get(tenant, ()):
        if earlier.prompt_id == job.prompt_id:
            break
        begins_at += span_of(earlier.cost_s, weight)
        yield tenant, earlier
    else:
        raise LookupError(job.prompt_id)
    for other, jobs in waiting.items():
        tag, weight = start_tag(finish_tags.get(other, 0.0), virtual_time), weights.get(other, 1.0)
        for earlier in jobs if other != tenant else ():
            if (tag, earlier.sequence) > (begins_at, job.sequence):
                break
            tag += span_of(earlier.cost_s, weight)
            yield other, earlier

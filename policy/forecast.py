"""When waiting jobs will probably begin: fair queueing played on, with what each job is expected to take. Has no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    busy_s: float,
) -> dict[str, float]:
    """Seconds from now, by the ids of the tenant's jobs. waiting: in the order within each tenant. busy_s: what ComfyUI has still to do with what it has.

    The real order is found anew whenever a job is given: jobs that come or end meanwhile change it.
    """
    tags = {each: finish_tags.get(each, 0.0) for each in waiting}
    places = dict.fromkeys(waiting, 0)
    found: dict[str, float] = {}
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
        if head.tenant == tenant:
            found[job.prompt_id] = busy_s
        busy_s += job.cost_s
    return found

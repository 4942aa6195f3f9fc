"""When waiting jobs will probably begin: fair queueing played on, with what each job is expected to take. Has no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from policy.fairness import Head, next_of, span_of, start_tag
from policy.principal import TenantId

MAX_STEPS: Final = 500
"""Jobs that are played on; what comes later has no estimate."""


class Expected(NamedTuple):
    """A waiting job. cost_s: GPU seconds that it will probably take; sequence: its place among all jobs as they were submitted. places: names of the ComfyUIs
    that it may be given to, None for any."""

    prompt_id: str
    cost_s: float
    sequence: int
    places: frozenset[str] | None = None


class Busy(NamedTuple):
    """left_s: how long each ComfyUI that is given jobs has still to do with what it has, by name. speeds: 1 is usual."""

    left_s: Mapping[str, float]
    speeds: Mapping[str, float] = {}


class _Played:
    """The ComfyUIs as jobs are given to them."""

    def __init__(self, busy: Busy) -> None:
        self._left_s = dict(busy.left_s)
        self._speeds = {name: busy.speeds.get(name, 1.0) for name in self._left_s}
        self._only = next(iter(self._left_s)) if len(self._left_s) == 1 else None

    def can_take(self, job: Expected) -> bool:
        return bool(self._left_s) if job.places is None else any(name in job.places for name in self._left_s)

    def take(self, job: Expected) -> float:
        """When it begins, in seconds from now: where it ends soonest, as policy.placement chooses, but for which models are loaded."""
        left_s, speeds, name = self._left_s, self._speeds, self._only
        if name is None:
            names = [name for name in left_s if job.places is None or name in job.places]
            name = min(names, key=lambda name: left_s[name] + job.cost_s / speeds[name])
        in_s = left_s[name]
        left_s[name] = in_s + job.cost_s / speeds[name]
        return in_s

    def take_all(self, jobs: Sequence[Expected]) -> None:
        if self._only is None:
            for job in jobs:
                self.take(job)
        else:
            self._left_s[self._only] += sum([job.cost_s for job in jobs]) / self._speeds[self._only]


def starts_of(
    tenant: TenantId,
    waiting: Mapping[TenantId, Sequence[Expected]],
    finish_tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
    busy: Busy,
) -> dict[str, float]:
    """Seconds from now, by the ids of the tenant's jobs. waiting: in the order within each tenant. What may be given to none of the ComfyUIs has no
    estimate, and keeps nobody waiting.

    The real order is found anew whenever a job is given: jobs that come or end meanwhile change it.
    """
    played = _Played(busy)
    waiting = {each: [job for job in jobs if played.can_take(job)] for each, jobs in waiting.items()}
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
        in_s = played.take(job)
        if head.tenant == tenant:
            found[job.prompt_id] = in_s
    return found


def start_of(
    job: Expected,
    tenant: TenantId,
    waiting: Mapping[TenantId, Iterable[Expected]],
    finish_tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
    busy: Busy,
) -> float | None:
    """As `starts_of`, of one job of its tenant's, from those alone that come before it; None where they are more than MAX_STEPS, or it is not there."""
    played = _Played(busy)
    if not played.can_take(job):
        return None
    able = {each: filter(played.can_take, jobs) for each, jobs in waiting.items()}
    before = come_before(job, tenant, able, finish_tags, virtual_time, weights)
    try:
        earlier = [each for _, each in islice(before, MAX_STEPS)]
    except LookupError:
        return None
    if len(earlier) >= MAX_STEPS:
        return None
    played.take_all(earlier)
    return played.take(job)


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

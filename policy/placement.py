"""Which of several ComfyUIs runs a job: of those that have what it needs, the one with which it has ended soonest.

A ComfyUI that ran the same models last begins at once, another one loads them first; where files of the job are it begins a little sooner than where they
are brought; one that has much to do takes longer. A job that is left to a
ComfyUI without room waits for it, and counts there: when many do, another one is soon better, and loads the models too. So models stay where they are
as long as that saves time. Has no clock; trusts its caller for what each ComfyUI has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from policy.fairness import Head, order_of, span_of
from policy.needs import Needs
from policy.principal import TenantId

LOAD_S: Final = 20.0
"""How long it takes to load other models: what is read from a disk of a few gigabytes at a time."""
FILE_S: Final = 0.05
"""How long it takes to bring a file, besides its bytes."""
BYTES_PER_S: Final = 100e6
MAX_BRING_S: Final = LOAD_S
"""What all files of a job are taken to take at most: how large they are may be known badly."""
LOOKED_AT: Final = 128
"""Jobs that wait, of all tenants: how far ahead a ComfyUI looks for one that it has the models of."""
AT_LEAST: Final = 2
"""Jobs of each tenant that are looked at, however many tenants wait."""


@dataclass(slots=True)
class Seat:
    """A ComfyUI that takes jobs. room: how many more. wait_s: until it has run what it has and what is left to it. models: those that it was given last.

    is_empty: it has nothing. weight: how fast it is, 1 is usual. far_room: how many more whose files are brought there first, each of another tenant.
    behind: tenants for whose jobs that is done now, and whose next ones would only stand behind them.
    """

    comfyui: str
    room: int
    wait_s: float = 0.0
    models: tuple[str, ...] = ()
    is_empty: bool = True
    weight: float = 1.0
    far_room: int = 1
    behind: frozenset[TenantId] = frozenset()

    def has_room_for(self, job: Waiting, *, is_far: bool) -> bool:
        """SECURITY: what is brought takes as long as it is large: one tenant's films fill no window while the GPU has nothing to do
        (tests/several/test_overtaking.py::test_what_one_tenant_has_brought_leaves_room_for_others)."""
        return self.room > 0 and job.tenant not in self.behind and (self.far_room > 0 or not is_far)

    def ends_in_s(self, job: Waiting) -> float:
        """Until a job has run that comes next."""
        load_s = LOAD_S if job.models and job.models != self.models else 0.0
        return self.wait_s + load_s + job.cost_s / self.weight

    def take(self, job: Waiting) -> None:
        """The job comes here, now or when there is room."""
        self.wait_s = self.ends_in_s(job)
        self.models = job.models or self.models


class Waiting(NamedTuple):
    """A job that waits. cost_s: GPU seconds that it will probably take. needs: None where they are not known. is_alone: it goes where nothing else is, and
    nothing comes beside it."""

    prompt_id: str
    tenant: TenantId
    sequence: int
    cost_s: float
    needs: Needs | None = None
    is_alone: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        return self.needs.models if self.needs else ()


class Placed(NamedTuple):
    """start_tag: the virtual time when it is given (policy.fairness). has_models: its models are what that ComfyUI was given last."""

    prompt_id: str
    comfyui: str
    start_tag: float
    has_models: bool = False


ReadyIn = Callable[[str, Waiting], float | None]
"""In how many seconds the files of a job are at a ComfyUI that has what it needs, and that its tenant may use; None for any other."""


def ready_anywhere(comfyui: str, job: Waiting) -> float | None:
    return 0.0


def bring_s(sizes: Sequence[int], count: int) -> float:
    """How long it takes to bring files. sizes: in bytes, of some of them, 0 for one that is not known. count: of all; they are taken to be as those are."""
    if not sizes:
        return 0.0
    return min(MAX_BRING_S, (FILE_S * len(sizes) + sum(sizes) / BYTES_PER_S) * count / len(sizes))


def left_s(cost_s: float, ran_s: float) -> float:
    """How long a job that runs will take still. One that has run longer than was expected is not about to end: it probably runs on for as long as it is
    over, or a ComfyUI that has nothing to do would be left out for one at which jobs take hours."""
    return abs(cost_s - ran_s)


def prefer(seats: Iterable[Seat], job: Waiting, ready_in: ReadyIn) -> Seat | None:
    """Where the job has ended soonest, whether there is room now or not; of two that are equal one that has room, or the first. None: nowhere."""
    able = [
        (seat.ends_in_s(job) + ready_s, seat) for seat in seats if (ready_s := ready_in(seat.comfyui, job)) is not None
    ]
    return min(able, key=lambda each: (each[0], each[1].room <= 0), default=(0.0, None))[1]


def place(
    waiting: Mapping[TenantId, Sequence[Waiting]],
    seats: Sequence[Seat],
    ready_in: ReadyIn,
    tags: Mapping[TenantId, float],
    virtual_time: float,
    weights: Mapping[str, float],
) -> list[Placed]:
    """Who goes where now, in the order of fair queueing (policy.fairness). waiting: each tenant's in its order. tags: finish tags.

    A job that is left to a ComfyUI which has no room lets those behind it pass, its tenant's too, and is charged when it is given. Changes the seats.
    """
    tags, ahead = dict(tags), {tenant: list(reversed(jobs)) for tenant, jobs in waiting.items() if jobs}
    placed: list[Placed] = []
    line = _line_up(ahead, tags, virtual_time)
    # SECURITY: each tenant's first ones are looked at, however many jobs of others wait for a ComfyUI without room
    # (test_placement.py::test_very_many_tenants_that_wait_for_another_one_keep_nobody_waiting).
    for _ in range(max(LOOKED_AT, AT_LEAST * len(ahead))):
        if not line or not any(seat.room > 0 for seat in seats):
            break
        (begins_at, _), tenant = heappop(line)
        job = ahead[tenant].pop()
        seat = prefer(seats, job, ready_in)
        is_far = seat is not None and bool(ready_in(seat.comfyui, job))
        if _is_placed(job, seat, placed, begins_at, is_far=is_far):
            virtual_time = begins_at
            tags[tenant] = begins_at + span_of(job.cost_s, weights.get(tenant, 1.0))
            line = _line_up(ahead, tags, virtual_time)
        elif ahead[tenant]:
            heappush(line, ((begins_at, ahead[tenant][-1].sequence), tenant))
    return placed


def _line_up(
    ahead: Mapping[TenantId, Sequence[Waiting]], tags: Mapping[TenantId, float], virtual_time: float
) -> list[tuple[tuple[float, int], TenantId]]:
    """A heap of those whose turn it is, with when it begins. Who is not placed changes nothing of it but its own next job."""
    heads = (
        Head(tenant, tags.get(tenant, 0.0), jobs[-1].prompt_id, jobs[-1].sequence)
        for tenant, jobs in ahead.items()
        if jobs
    )
    line = [(order_of(head, virtual_time), head.tenant) for head in heads]
    heapify(line)
    return line


def _is_placed(job: Waiting, seat: Seat | None, placed: list[Placed], begins_at: float, *, is_far: bool) -> bool:
    if seat is None:
        return False
    has_room = seat.has_room_for(job, is_far=is_far)
    has_models = bool(job.models) and job.models == seat.models
    seat.take(job)
    if job.is_alone and has_room and not seat.is_empty:
        seat.room = 0  # it would never be empty if others came meanwhile
        return False
    if not has_room:
        return False
    seat.room, seat.is_empty = 0 if job.is_alone else seat.room - 1, False
    if is_far:
        seat.far_room, seat.behind = seat.far_room - 1, seat.behind | {job.tenant}
    placed.append(Placed(job.prompt_id, seat.comfyui, begins_at, has_models))
    return True

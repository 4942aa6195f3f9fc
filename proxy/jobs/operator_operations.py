"""What the operator's commands ask of the gate's database besides what the gate itself does with it (proxy/jobs/store_operations.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from policy.forecast import Expected
from policy.needs import Needs, read_needs
from policy.placement import ReadyIn, Seat, Waiting, place, prefer
from policy.principal import TenantId
from proxy.jobs.job_rows import JobRow, StoredState
from proxy.jobs.store_placing import as_they_are, first_ones
from proxy.jobs.store_reading import fair_tags, find, listing
from proxy.jobs.store_state import drained, held_models
from proxy.persistence.operations import Operation, Statement

_ALL: Final = 10_000


class Load(NamedTuple):
    """given: those that ComfyUI has, or may have, the newest first. waiting: how many wait in the gate. drained: names of single ComfyUIs that are."""

    is_draining: bool
    given: list[JobRow]
    waiting: int
    drained: frozenset[str] = frozenset()

    def of(self, comfyui: str, comfyuis: Sequence[str]) -> Load:
        """With what one ComfyUI has. comfyuis: all names, the first one first, which may have had another name, or none."""
        others = comfyuis[1:]
        is_first = comfyui == comfyuis[0]
        given = [job for job in self.given if (job.comfyui not in others if is_first else job.comfyui == comfyui)]
        return self._replace(given=given)


def is_draining(comfyui: str = "") -> Operation[bool]:
    """comfyui: a name, where there are several: of this one too, not of all alone."""
    [(is_on, is_drained)] = yield Statement(
        "SELECT is_draining, EXISTS (SELECT 1 FROM drained_comfyuis WHERE comfyui = ?) FROM store_state WHERE id = 1",
        (comfyui,),
    )
    return bool(is_on or is_drained)


def load() -> Operation[Load]:
    is_on = yield from is_draining()
    running = yield from listing(None, StoredState.RUNNING, _ALL)
    dispatched = yield from listing(None, StoredState.DISPATCHED, _ALL)
    [(waiting,)] = yield Statement("SELECT COUNT(*) FROM jobs WHERE state = ?", (StoredState.WAITING,))
    return Load(is_on, [*running, *dispatched], int(waiting), (yield from drained()))


class Standing(NamedTuple):
    """A job among all others. needs: None where they are not recorded. waiting: each tenant's, in its order. has: how many jobs each ComfyUI has, by name.
    models: those that each ComfyUI was given last. drained: names of those that are given nothing."""

    job: JobRow
    needs: Needs | None
    is_draining: bool
    virtual_time: float
    tags: Mapping[TenantId, float]
    waiting: Mapping[TenantId, Sequence[Expected]]
    has: Mapping[str, int]
    models: Mapping[str, Sequence[str]]
    drained: frozenset[str] = frozenset()


def standing(prompt_id: str) -> Operation[Standing | None]:
    """None where there is no such job."""
    job = yield from find(prompt_id)
    if job is None:
        return None
    needs = yield Statement("SELECT needs FROM job_needs WHERE prompt_id = ?", (prompt_id,))
    virtual_time, tags = yield from fair_tags()
    rows = yield Statement(
        "SELECT tenant, prompt_id, cost_s, sequence FROM jobs WHERE state = ? ORDER BY rank, sequence",
        (StoredState.WAITING,),
    )
    waiting: dict[TenantId, list[Expected]] = {}
    for tenant, *expected in rows:
        waiting.setdefault(TenantId(tenant), []).append(Expected(*expected))
    has = yield Statement(
        "SELECT comfyui, COUNT(*) FROM jobs WHERE state IN (?, ?) GROUP BY comfyui",
        (StoredState.DISPATCHED, StoredState.RUNNING),
    )
    models = yield from held_models()
    return Standing(
        job,
        read_needs(bytes(needs[0][0])) if needs else None,
        (yield from is_draining()),
        virtual_time,
        tags,
        waiting,
        {comfyui: int(count) for comfyui, count in has},
        models,
        (yield from drained()),
    )


class Foreseen(NamedTuple):
    """Where a job goes that waits. is_next: now; else when there is room."""

    comfyui: str
    is_next: bool


def foresee(
    prompt_id: str, seats: Sequence[Seat], ready_in: ReadyIn, now_s: float, weights: Mapping[str, float]
) -> Operation[Foreseen | None]:
    """As the gate chooses (store_placing.give_to_several), without giving anything; None where its turn does not come. seats: as there."""
    virtual_time, _ = yield from fair_tags()
    waiting, tags = yield from first_ones()
    seats = yield from as_they_are(seats, now_s)
    found: list[Foreseen] = []

    def look(comfyui: str, job: Waiting) -> float | None:
        """place asks for it when its turn has come."""
        if job.prompt_id == prompt_id and not found and (seat := prefer(seats, job, ready_in)) is not None:
            found.append(Foreseen(seat.comfyui, False))
        return ready_in(comfyui, job)

    placed = place(waiting, seats, look, tags, virtual_time, weights)
    given = next((each.comfyui for each in placed if each.prompt_id == prompt_id), None)
    return Foreseen(given, True) if given is not None else next(iter(found), None)

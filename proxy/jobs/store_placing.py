"""Who is given to which of several ComfyUIs next, decided in one transaction (policy.placement, proxy/persistence/operations.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from policy.needs import Needs, read_needs
from policy.placement import AT_LEAST, LOOKED_AT, ReadyIn, Seat, Waiting, left_s, place
from policy.principal import TenantId
from proxy.jobs.job import COMFYUI_GONE
from proxy.jobs.job_rows import Given, StoredState
from proxy.jobs.store_giving import charge, dispatch, get_job
from proxy.jobs.store_reading import submitted_of
from proxy.jobs.store_state import begin, drained, held_models
from proxy.persistence.operations import Operation, Statement

_TENANTS: Final = (
    "WITH RECURSIVE waiting (tenant) AS (SELECT MIN(tenant) FROM jobs WHERE state = ? UNION ALL "
    "SELECT (SELECT MIN(tenant) FROM jobs WHERE state = ? AND tenant > waiting.tenant) FROM waiting WHERE waiting.tenant IS NOT NULL) "
    "SELECT waiting.tenant, COALESCE(fair_tags.finish_tag, 0.0) FROM waiting "
    "LEFT JOIN fair_tags ON fair_tags.tenant = waiting.tenant WHERE waiting.tenant IS NOT NULL"
)
_FIRST_ONES: Final = "SELECT prompt_id, sequence, cost_s, attempts FROM jobs WHERE state = ? AND tenant = ? ORDER BY rank, sequence LIMIT ?"

KnownNeeds = dict[tuple[str, int], Needs | None]
"""By id and sequence. SECURITY: clients decide how large they are, and reading all of them anew whenever one is chosen took half a second, in which nobody
else writes (test_store_placing.py::test_what_jobs_need_is_read_once)."""


def give_to_several(
    seats: Sequence[Seat],
    ready_in: ReadyIn,
    gate: str,
    now_s: float,
    lease_until_s: float,
    weights: Mapping[str, float],
    but: Collection[TenantId] = (),
    known: KnownNeeds | None = None,
    *,
    has_others: bool = True,
) -> Operation[list[Given]]:
    """As `give`, where the job may go to one of several. seats: those that are there, empty: `room` is their window. known: see first_ones. has_others:
    see as_they_are."""
    state = yield from begin()
    given: list[Given] = []
    if state.is_draining:
        return given
    waiting, tags = yield from first_ones(known)
    waiting = {tenant: jobs for tenant, jobs in waiting.items() if tenant not in but}
    if not waiting:
        return given
    seats = yield from as_they_are(seats, now_s, has_others=has_others)
    models = {seat.comfyui: seat.models for seat in seats}
    placed = place(waiting, seats, ready_in, tags, state.virtual_time, weights)
    jobs = {job.prompt_id: job for ahead in waiting.values() for job in ahead}
    for each in placed:
        row, job = (yield from get_job(each.prompt_id)), jobs[each.prompt_id]
        row = yield from charge(row, state, weights.get(job.tenant, 1.0))
        row = row._replace(number=row.number + len(given) / 1024)
        row = yield from dispatch(row, each.comfyui, gate, now_s, lease_until_s, has_models=each.has_models)
        is_change = bool(job.models) and models[each.comfyui] not in ((), job.models)
        given.append(Given(row, (yield from submitted_of(each.prompt_id)), job.needs, is_change))
        state = state._replace(virtual_time=each.start_tag)
        if job.models:
            models[each.comfyui] = job.models
            yield from note_models(each.comfyui, job.models)
    return given


def note_models(comfyui: str, models: Sequence[str]) -> Operation[None]:
    """These are the ones that a ComfyUI was given last."""
    yield Statement(
        "INSERT INTO comfyui_models VALUES (?, ?) ON CONFLICT (comfyui) DO UPDATE SET models = excluded.models",
        (comfyui, "\n".join(models)),
    )


def forget_models(comfyui: str) -> Operation[None]:
    """It was restarted, and has none any more; but those of what it was given since."""
    yield Statement(
        "DELETE FROM comfyui_models WHERE comfyui = ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE state IN (?, ?) AND comfyui = ?)",
        (comfyui, StoredState.DISPATCHED, StoredState.RUNNING, comfyui),
    )


def first_ones(
    known: KnownNeeds | None = None,
) -> Operation[tuple[dict[TenantId, list[Waiting]], dict[TenantId, float]]]:
    """The first waiting jobs of each tenant, in its order, and the tenants' finish tags. known: what was read before; then what these need."""
    tenants = yield Statement(_TENANTS, (StoredState.WAITING,) * 2)
    tags = {TenantId(tenant): float(tag) for tenant, tag in tenants}
    each = max(AT_LEAST, LOOKED_AT // max(1, len(tags)))
    before = {} if known is None else known
    waiting: dict[TenantId, list[Waiting]] = {}
    found: KnownNeeds = {}
    for tenant in tags:
        rows = yield Statement(_FIRST_ONES, (StoredState.WAITING, tenant, each))
        waiting[tenant] = []
        for prompt_id, sequence, cost_s, attempts in rows:
            key = (prompt_id, sequence)
            needs = found[key] = before[key] if key in before else (yield from _needs_of(prompt_id))
            waiting[tenant].append(
                Waiting(prompt_id, tenant, sequence, cost_s, needs, is_alone=COMFYUI_GONE in attempts)
            )
    if known is not None:
        known.clear()
        known.update(found)
    return waiting, tags


def is_any_reading(reads: Callable[[Needs], bool]) -> Operation[bool]:
    """Whether a job that waits, or was given to a ComfyUI and may be on its way there, needs what this says."""
    rows = yield Statement(
        "SELECT job_needs.needs FROM job_needs JOIN jobs ON jobs.prompt_id = job_needs.prompt_id WHERE jobs.state IN (?, ?)",
        (StoredState.WAITING, StoredState.DISPATCHED),
    )
    return any(reads(read_needs(needs)) for (needs,) in rows)


def _needs_of(prompt_id: str) -> Operation[Needs | None]:
    rows = yield Statement("SELECT needs FROM job_needs WHERE prompt_id = ?", (prompt_id,))
    return read_needs(rows[0][0]) if rows else None


def as_they_are(seats: Sequence[Seat], now_s: float, *, has_others: bool = True) -> Operation[list[Seat]]:
    """With what each ComfyUI has, whichever gate gave it; without those that are drained, to which nothing is left either. has_others: else there is one,
    which is never drained by its name."""
    out = (yield from drained()) if has_others else frozenset[str]()
    rows = yield Statement(
        "SELECT comfyui, cost_s, started_at_s, attempts FROM jobs WHERE state IN (?, ?)",
        (StoredState.DISPATCHED, StoredState.RUNNING),
    )
    models = yield from held_models()
    found = {
        seat.comfyui: replace(seat, models=models.get(seat.comfyui, ())) for seat in seats if seat.comfyui not in out
    }
    for comfyui, cost_s, started_at_s, attempts in rows:
        seat = found.get(comfyui)
        if seat is not None:
            seat.room = 0 if COMFYUI_GONE in attempts else seat.room - 1
            seat.wait_s += left_s(cost_s / seat.weight, 0.0 if started_at_s is None else now_s - started_at_s)
            seat.is_empty = False
    return list(found.values())

"""Who is given to which ComfyUI next, each decision one transaction (proxy/persistence/operations.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import orjson

from policy.fairness import Head, next_of, span_of, start_tag
from policy.principal import TenantId
from proxy.jobs.job import COMFYUI_GONE
from proxy.jobs.job_rows import COLUMNS, Given, JobRow, StoredState
from proxy.jobs.store_reading import submitted_of
from proxy.jobs.store_state import State, begin
from proxy.persistence.operations import Operation, Statement

_HEADS: Final = (
    # Each tenant that waits is one step in the index, however many of its jobs wait.
    "WITH RECURSIVE waiting (tenant) AS (SELECT MIN(tenant) FROM jobs WHERE state = ? UNION ALL "
    "SELECT (SELECT MIN(tenant) FROM jobs WHERE state = ? AND tenant > waiting.tenant) FROM waiting WHERE waiting.tenant IS NOT NULL) "
    "SELECT waiting.tenant, COALESCE(fair_tags.finish_tag, 0.0), jobs.prompt_id, jobs.sequence FROM waiting "
    "LEFT JOIN fair_tags ON fair_tags.tenant = waiting.tenant JOIN jobs ON jobs.prompt_id = ("
    "SELECT first.prompt_id FROM jobs AS first WHERE first.state = ? AND first.tenant = waiting.tenant "
    "ORDER BY first.rank, first.sequence LIMIT 1)"
)


def room_of(comfyui: str, window: int) -> Operation[int]:
    """How many jobs this ComfyUI can be given: none beside one that it was given alone."""
    rows = yield Statement(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN attempts LIKE ? THEN 1 ELSE 0 END), 0) FROM jobs WHERE state IN (?, ?) AND comfyui = ?",
        (f'%"{COMFYUI_GONE}%', StoredState.DISPATCHED, StoredState.RUNNING, comfyui),
    )
    count, alone = rows[0]
    return 0 if alone else window - int(count)


def charge(job: JobRow, state: State, weight: float) -> Operation[JobRow]:
    """It goes to ComfyUI now: its tenant's tag and the virtual time move on."""
    rows = yield Statement("SELECT finish_tag FROM fair_tags WHERE tenant = ?", (job.tenant,))
    tag = start_tag(rows[0][0] if rows else 0.0, state.virtual_time)
    span = span_of(job.cost_s, weight)
    yield Statement(
        "INSERT INTO fair_tags VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET finish_tag = excluded.finish_tag",
        (job.tenant, tag + span),
    )
    yield Statement("UPDATE store_state SET virtual_time = ? WHERE id = 1", (tag,))
    return job._replace(state=StoredState.DISPATCHED, span=span, number=float(state.version), version=state.version)


def give(
    comfyui: str,
    window: int,
    gate: str,
    now_s: float,
    lease_until_s: float,
    weights: Mapping[str, float],
    but: Collection[TenantId] = (),
) -> Operation[list[Given]]:
    """Chooses who goes to this ComfyUI next, as far as its window has room, and marks them as dispatched by this gate. but: tenants that have to wait.

    A job that ComfyUI ran, or may have, when it went away goes alone: if ComfyUI goes away again, it is known under which job.
    """
    state = yield from begin()
    given: list[Given] = []
    if state.is_draining:
        return given
    room = yield from room_of(comfyui, window)
    while room > 0:
        heads = yield from _heads()
        head = next_of((head for head in heads if head.tenant not in but), state.virtual_time)
        if head is None:
            break
        waiting = yield from get_job(head.prompt_id)
        is_alone = COMFYUI_GONE in waiting.attempts
        if is_alone and room < window:
            break
        # Each gets a number of its own, in the order in which they are given.
        job = yield from charge(waiting, state, weights.get(head.tenant, 1.0))
        job = job._replace(number=job.number + len(given) / 1024)
        job = yield from dispatch(job, comfyui, gate, now_s, lease_until_s)
        given.append(Given(job, (yield from submitted_of(job.prompt_id))))
        state = state._replace(virtual_time=start_tag(head.finish_tag, state.virtual_time))
        room = 0 if is_alone else room - 1
    return given


def dispatch(
    job: JobRow, comfyui: str, gate: str, now_s: float, lease_until_s: float, *, has_models: bool = False
) -> Operation[JobRow]:
    """It is charged for and has its number: what else stands of it. has_models: the ComfyUI, of several, had its models already."""
    attempt = {"at": now_s, "comfyui": comfyui} | ({"had_models": True} if has_models else {})
    attempts = orjson.dumps([*job.told_attempts(), attempt]).decode()
    job = job._replace(comfyui=comfyui, gate=gate, lease_until_s=lease_until_s, attempts=attempts)
    yield Statement(
        "UPDATE jobs SET state = ?, span = ?, number = ?, comfyui = ?, gate = ?, lease_until_s = ?, attempts = ?, version = ? WHERE prompt_id = ?",
        (job.state, job.span, job.number, comfyui, gate, lease_until_s, attempts, job.version, job.prompt_id),
    )
    return job


def _heads() -> Operation[list[Head]]:
    rows = yield Statement(_HEADS, (StoredState.WAITING,) * 3)
    return [Head(TenantId(tenant), tag, prompt_id, sequence) for tenant, tag, prompt_id, sequence in rows]


def get_job(prompt_id: str) -> Operation[JobRow]:
    rows = yield Statement(f"SELECT {COLUMNS} FROM jobs WHERE prompt_id = ?", (prompt_id,))
    return JobRow(*rows[0])

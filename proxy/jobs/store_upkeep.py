"""What is done with recorded jobs beside their way through ComfyUI: leases, bounds, and what the operator wants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from policy.rules.prompt import LAST_PLACE
from proxy.jobs.copy_news import tell_never_made
from proxy.jobs.job_rows import COLUMNS, ENTRY, MEASURED, ROW, SUBMITTED, Bounds, JobRow, StoredState
from proxy.jobs.store_operations import delete_job, forget, give_back
from proxy.jobs.store_reading import find
from proxy.jobs.store_state import begin
from proxy.persistence.operations import Operation, Statement

NOT_SENT: Final = "not-sent"
MAX_FORGOTTEN: Final = 20_000
"""Ids of jobs that are gone: nobody else gets them, and what ComfyUI still has in its history does not bring them back."""
RETAINED_AT_ONCE: Final = 200
"""Jobs that one transaction deletes."""


def renew_leases(gate: str, lease_until_s: float) -> Operation[None]:
    """Of the jobs that this gate follows. Not a change that anybody has to read."""
    yield Statement(
        "UPDATE jobs SET lease_until_s = ? WHERE gate = ? AND state IN (?, ?)",
        (lease_until_s, gate, StoredState.DISPATCHED, StoredState.RUNNING),
    )


def take_over(gate: str, now_s: float, lease_until_s: float) -> Operation[list[str]]:
    """Jobs whose gate has not renewed its lease are followed by this one from now on; the ids of those."""
    state = yield from begin()
    rows = yield Statement(
        "UPDATE jobs SET gate = ?, lease_until_s = ?, version = ? WHERE state IN (?, ?) AND lease_until_s < ? RETURNING prompt_id",
        (gate, lease_until_s, state.version, StoredState.DISPATCHED, StoredState.RUNNING, now_s),
    )
    return [prompt_id for (prompt_id,) in rows]


def leave(gate: str, but: Sequence[str]) -> Operation[None]:
    """This gate stops: others need not wait for the end of its leases to follow its jobs. but: those of which it is not known whether ComfyUI has them
    yet; whoever looked for them at once could take them for lost, and give them again.
    """
    state = yield from begin()
    there = f"AND prompt_id NOT IN ({', '.join('?' * len(but))})" if but else ""
    yield Statement(
        f"UPDATE jobs SET gate = '', lease_until_s = 0.0, version = ? WHERE gate = ? AND state IN (?, ?) {there}",
        (state.version, gate, StoredState.DISPATCHED, StoredState.RUNNING, *but),
    )


def retain(tenant: str, bounds: Bounds) -> Operation[dict[str, list[str]]]:
    """Deletes what is too old, too many or too large of a tenant's ended jobs, the oldest first, and at most RETAINED_AT_ONCE of them: everybody else who
    writes waits meanwhile. The ids, by the reason: age, count or bytes.
    """
    state = yield from begin()
    rows = yield Statement(
        "SELECT prompt_id, ended_at_s, size FROM jobs WHERE tenant = ? AND ended_at_s IS NOT NULL ORDER BY ended_at_s DESC",
        (tenant,),
    )
    too_much: list[tuple[str, str]] = []
    held = 0
    for count, (prompt_id, ended_at_s, size) in enumerate(rows, 1):
        held += size
        if ended_at_s < bounds.oldest_s:
            too_much.append((prompt_id, "age"))
        elif count > bounds.max_jobs:
            too_much.append((prompt_id, "count"))
        elif held > bounds.max_bytes:
            too_much.append((prompt_id, "bytes"))
    dropped: dict[str, list[str]] = {"age": [], "count": [], "bytes": []}
    for prompt_id, reason in too_much[-RETAINED_AT_ONCE:]:
        dropped[reason].append(prompt_id)
        yield from tell_never_made(tenant, prompt_id)
        yield from delete_job(prompt_id)
        yield Statement(
            "INSERT INTO forgotten_jobs VALUES (?, ?, ?) ON CONFLICT (prompt_id) DO NOTHING",
            (prompt_id, tenant, state.version),
        )
    yield Statement(
        "DELETE FROM forgotten_jobs WHERE version <= (SELECT version FROM forgotten_jobs ORDER BY version DESC LIMIT 1 OFFSET ?)",
        (MAX_FORGOTTEN,),
    )
    return dropped


def wish(prompt_id: str, text: str) -> Operation[bool]:
    """What the operator wants of a job that has not ended; False when there is none."""
    state = yield from begin()
    done = yield Statement(
        "UPDATE jobs SET wish = ?, version = ? WHERE prompt_id = ? AND ended_at_s IS NULL RETURNING prompt_id",
        (text, state.version, prompt_id),
    )
    return bool(done)


def retry(prompt_id: str) -> Operation[JobRow | None]:
    """A job that failed waits again; None when there is none, or what was submitted is not kept."""
    state = yield from begin()
    [(kept, size)] = yield Statement(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM job_documents WHERE prompt_id = ? AND kind IN (?, ?, ?)",
        (prompt_id, *SUBMITTED),
    )
    if kept < len(SUBMITTED):
        return None
    done = yield Statement(
        "UPDATE jobs SET state = ?, started_at_s = NULL, ended_at_s = NULL, gpu_s = 0.0, error = '', failing_class = '', gate = '', "
        "span = 0.0, stopped_after_s = NULL, size = ?, version = ? WHERE prompt_id = ? AND state = ? "
        f"RETURNING {COLUMNS}",
        (StoredState.WAITING, int(size), state.version, prompt_id, StoredState.FAILED),
    )
    if done:
        yield Statement(
            "DELETE FROM job_documents WHERE prompt_id = ? AND kind IN (?, ?, ?)", (prompt_id, ENTRY, ROW, MEASURED)
        )
        yield Statement("DELETE FROM assets WHERE prompt_id = ?", (prompt_id,))
    return JobRow(*done[0]) if done else None


def settle_unsaid(tenant: str, prompt_id: str, gate: str, now_s: float) -> Operation[JobRow | None]:
    """Deletes a job that is on disk although its client was told that it is not. gate: that has recorded it as one that goes to ComfyUI, and has not sent
    it; "" where it was recorded as one that waits.

    Where an Idempotency-Key names it, with which its client asks after it again, it stays and waits; its row then. So it is where it was given to
    ComfyUI meanwhile: deleted, it would run there beside what the window has room for, and nobody would see to its end.
    """
    job = yield from find(prompt_id)
    if job is None or job.tenant != tenant:  # it was never written, and its id may be another's by now
        return None
    is_next = job.state == StoredState.DISPATCHED and job.gate == gate and job.number < LAST_PLACE
    if job.state != StoredState.WAITING and not is_next:
        return job
    if not (yield Statement("SELECT 1 FROM idempotent_submissions WHERE prompt_id = ? LIMIT 1", (prompt_id,))):
        yield from forget(tenant, [prompt_id])
        return None
    return (yield from give_back(prompt_id, now_s, NOT_SENT)) if is_next else job


def drop_wished(text: str, before_s: float, but: Collection[str] = ()) -> Operation[None]:
    """Jobs with this wish that were submitted before a time (Unix seconds), and have not ended: they never came to be. but: those that ComfyUI has."""
    rows = yield Statement(
        "SELECT prompt_id, tenant FROM jobs WHERE state IN (?, ?) AND wish = ? AND created_at_s < ?",
        (StoredState.DISPATCHED, StoredState.RUNNING, text, before_s),
    )
    for prompt_id, tenant in rows:
        if prompt_id not in but:
            yield from forget(tenant, [prompt_id])


def give_up_wished(text: str, gate: str, comfyui: str, now_s: float, reason: str) -> Operation[list[JobRow]]:
    """Jobs with this wish of a gate that a ComfyUI may have, and that an Idempotency-Key names, wait again; the rows of those."""
    rows = yield Statement(
        "SELECT prompt_id FROM jobs WHERE state IN (?, ?) AND wish = ? AND gate = ? AND comfyui = ? AND EXISTS "
        "(SELECT 1 FROM idempotent_submissions WHERE idempotent_submissions.prompt_id = jobs.prompt_id)",
        (StoredState.DISPATCHED, StoredState.RUNNING, text, gate, comfyui),
    )
    found = []
    for (prompt_id,) in rows:
        yield Statement("UPDATE jobs SET wish = '' WHERE prompt_id = ?", (prompt_id,))
        if (row := (yield from give_back(prompt_id, now_s, reason))) is not None:
            found.append(row)
    return found


def drain(*, is_on: bool) -> Operation[None]:
    """While it is on no gate gives ComfyUI a job."""
    yield Statement("UPDATE store_state SET version = version + 1, is_draining = ? WHERE id = 1", (int(is_on),))


def drain_one(comfyui: str, *, is_on: bool) -> Operation[None]:
    """While it is on no gate gives a job to this one of several ComfyUIs."""
    yield from begin()  # after it no transaction gives by what stood here before
    if is_on:
        yield Statement("INSERT INTO drained_comfyuis VALUES (?) ON CONFLICT (comfyui) DO NOTHING", (comfyui,))
    else:
        yield Statement("DELETE FROM drained_comfyuis WHERE comfyui = ?", (comfyui,))

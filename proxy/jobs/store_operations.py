"""What is done with jobs in the gate's database, each as one transaction (proxy/persistence/operations.py).

Every writer holds the one row of `store_state` until it commits: so versions come in the order of commits, and who is given to ComfyUI next is
decided by one gate at a time. Holding it takes as long as the transaction, which is a few statements by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from policy.call import NO_EXTRAS, JobExtras
from policy.fairness import time_at_rest
from proxy.jobs.job_rows import (
    CANCEL,
    COLUMNS,
    ENTRY,
    PLACES,
    ROW,
    SUBMITTED,
    Ended,
    JobRow,
    StoredState,
    Submitted,
)
from proxy.jobs.outbox import announce
from proxy.jobs.store_giving import charge, room_of
from proxy.jobs.store_reading import find
from proxy.jobs.store_state import begin, drained
from proxy.persistence.operations import Operation, Statement

_FORGOTTEN: Final = ""
_KNOWN: Final = (
    "SELECT tenant, state FROM jobs WHERE prompt_id = ? "
    f"UNION ALL SELECT tenant, '{_FORGOTTEN}' FROM forgotten_jobs WHERE prompt_id = ?"
)
_INSERT_JOB: Final = f"INSERT INTO jobs ({COLUMNS}) VALUES ({PLACES})"
_TURN_BACK: Final = (
    # A tenant that was charged too much, and waits, stands where it would have stood: else all of whom too much was expected would begin alike, whatever
    # their weights. Whoever comes anew begins there too.
    "UPDATE store_state SET virtual_time = (SELECT finish_tag FROM fair_tags WHERE tenant = ?) WHERE id = 1 "
    "AND virtual_time > (SELECT finish_tag FROM fair_tags WHERE tenant = ?) AND EXISTS (SELECT 1 FROM jobs WHERE state = ? AND tenant = ?)"
)
_INSERT_SUBMITTED: Final = f"INSERT INTO job_documents VALUES {', '.join(['(?, ?, ?)'] * len(SUBMITTED))}"


class JobIdTaken(Exception):
    """There is, or lately was, a job of this id."""


class AssetGone(Exception):
    """An asset that the job uses was deleted since it was found. Carries its id."""


def add_next(
    job: JobRow,
    submitted: Submitted,
    window: int,
    weight: float,
    extras: JobExtras = NO_EXTRAS,
    *,
    has_others: bool = False,
) -> Operation[JobRow | None]:
    """Records a job as dispatched, where ComfyUI has room for it and nobody waits; else nothing is recorded, and it is None.

    has_others: it is one of several ComfyUIs, each of which may be drained. Raises JobIdTaken, AssetGone.
    """
    state = yield from begin()
    yield from _check_assets(job.tenant, extras.assets)
    if state.is_draining or (yield from _waits()):
        return None
    if has_others and job.comfyui in (yield from drained()):
        return None
    room = yield from room_of(job.comfyui, window)
    if room <= 0:
        return None
    if room == window:
        tags = yield Statement("SELECT finish_tag FROM fair_tags")
        state = state._replace(virtual_time=time_at_rest((tag for (tag,) in tags), state.virtual_time))
    placed = yield from charge(job, state, weight)
    placed = placed._replace(sequence=state.version, version=state.version, size=submitted.size)
    yield from _insert_unknown(placed)
    yield from _keep_submitted(placed, submitted, extras)
    return placed


def add_waiting(job: JobRow, submitted: Submitted, extras: JobExtras = NO_EXTRAS) -> Operation[JobRow]:
    """Records a job that waits until it is given (`give`). Raises JobIdTaken, AssetGone."""
    state = yield from begin()
    placed = job._replace(
        state=StoredState.WAITING,
        sequence=state.version,
        version=state.version,
        gate="",
        lease_until_s=0.0,
        attempts="[]",
        size=submitted.size,
    )
    yield from _insert_unknown(placed)
    yield from _check_assets(job.tenant, extras.assets)
    yield from _keep_submitted(placed, submitted, extras)
    return placed


def adopt(
    job: JobRow,
    submitted: Submitted | None = None,
    entry: bytes | None = None,
    row: bytes | None = None,
    extras: JobExtras = NO_EXTRAS,
    *,
    is_copied: bool = False,
) -> Operation[JobRow | None]:
    """Takes up a job that ComfyUI has and the database had not, as it is; None when it is known, or was forgotten. is_copied: see Ended."""
    state = yield from begin()
    if known := (yield Statement("SELECT tenant FROM jobs WHERE prompt_id = ?", (job.prompt_id,))):
        if known[0][0] == job.tenant:  # another gate, which saw it in ComfyUI's queue, does not know them
            yield from _keep_extras(job, extras)
        return None
    if (yield Statement("SELECT 1 FROM forgotten_jobs WHERE prompt_id = ?", (job.prompt_id,))):
        return None
    if job.span:
        yield Statement("INSERT INTO fair_tags VALUES (?, 0.0) ON CONFLICT (tenant) DO NOTHING", (job.tenant,))
        yield from _correct(job.tenant, job.span)
    size = job.size if submitted is None else submitted.size
    placed = job._replace(sequence=state.version, version=state.version, size=size)
    yield Statement(_INSERT_JOB, placed)
    if submitted is not None:
        yield from _keep_submitted(placed, submitted, extras)
    yield from _keep_result(job.prompt_id, entry, row)
    if placed.has_ended:
        yield from announce(placed, is_past=True, is_copied=is_copied and entry is not None)
    return placed


def _insert_unknown(job: JobRow) -> Operation[None]:
    """One of the same id that was canceled while it waited left no trace, as in ComfyUI. Raises JobIdTaken."""
    # `ON CONFLICT … RETURNING` would say the same in one statement: SQLite makes a table of what it returns, which takes longer than to ask first.
    known = yield Statement(_KNOWN, (job.prompt_id, job.prompt_id))
    if known:
        for tenant, state in known:
            if tenant != job.tenant or state not in (StoredState.CANCELED, _FORGOTTEN):
                raise JobIdTaken(job.prompt_id)
        yield from delete_job(job.prompt_id)
        yield Statement("DELETE FROM forgotten_jobs WHERE prompt_id = ?", (job.prompt_id,))
    yield Statement(_INSERT_JOB, job)


def _keep_submitted(job: JobRow, submitted: Submitted, extras: JobExtras) -> Operation[None]:
    prompt_id, (body, originals, outputs) = job.prompt_id, SUBMITTED
    parts = (
        prompt_id,
        body,
        submitted.body,
        prompt_id,
        originals,
        submitted.originals,
        prompt_id,
        outputs,
        submitted.outputs,
    )
    yield Statement(_INSERT_SUBMITTED, parts)
    yield from _keep_extras(job, extras)


def _keep_extras(job: JobRow, extras: JobExtras) -> Operation[None]:
    if labels := [part for label in extras.labels.items() for part in (job.prompt_id, job.tenant, *label)]:
        yield Statement(
            f"INSERT INTO job_labels VALUES {', '.join(['(?, ?, ?, ?)'] * len(extras.labels))}", tuple(labels)
        )
    for asset_id in extras.assets:
        yield Statement("INSERT INTO job_assets VALUES (?, ?)", (job.prompt_id, asset_id))
    if extras.webhook:
        yield Statement("INSERT INTO job_webhooks VALUES (?, ?, ?)", (job.prompt_id, job.tenant, extras.webhook))
    if extras.needs:
        yield Statement("INSERT INTO job_needs VALUES (?, ?)", (job.prompt_id, extras.needs))


def _check_assets(tenant: str, asset_ids: Sequence[str]) -> Operation[None]:
    """They were found before this transaction; whoever deletes one comes before it, or sees that a job uses it. Raises AssetGone."""
    for asset_id in asset_ids:
        if not (yield Statement("SELECT 1 FROM assets WHERE asset_id = ? AND tenant = ?", (asset_id, tenant))):
            raise AssetGone(asset_id)


def _waits() -> Operation[bool]:
    return bool((yield Statement("SELECT 1 FROM jobs WHERE state = ? LIMIT 1", (StoredState.WAITING,))))


def amend(prompt_id: str, outputs: bytes) -> Operation[None]:
    """outputs: as in Submitted. Nothing where it has ended meanwhile."""
    yield Statement(
        "UPDATE job_documents SET body = ? WHERE prompt_id = ? AND kind = ?", (outputs, prompt_id, SUBMITTED[2])
    )


def start(prompt_id: str, started_at_s: float) -> Operation[JobRow | None]:
    """ComfyUI runs it; None when that is known, or it is none that ComfyUI has."""
    state = yield from begin()
    known = yield from find(prompt_id)
    if known is None or known.state != StoredState.DISPATCHED:
        return None
    started = known._replace(state=StoredState.RUNNING, started_at_s=started_at_s, version=state.version)
    yield Statement(
        "UPDATE jobs SET state = ?, started_at_s = ?, version = ? WHERE prompt_id = ?",
        (started.state, started.started_at_s, started.version, prompt_id),
    )
    return started


def finish(prompt_id: str, ended: Ended) -> Operation[JobRow | None]:
    """Ends a job; the row as it is when it has ended already, None when it is gone. What was submitted is kept where it failed, to be tried again."""
    state = yield from begin()
    known = yield from find(prompt_id)
    if known is None or known.has_ended:
        return known
    attempts = _close_attempt(known.attempts, ended.ended_at_s, ended.error or ended.state)
    if ended.state is not StoredState.FAILED:
        yield Statement("DELETE FROM job_documents WHERE prompt_id = ? AND kind IN (?, ?, ?)", (prompt_id, *SUBMITTED))
    elif ended.body is not None:
        yield Statement(
            "UPDATE job_documents SET body = ? WHERE prompt_id = ? AND kind = ?", (ended.body, prompt_id, SUBMITTED[0])
        )
    yield from _keep_result(prompt_id, ended.entry, ended.row)
    size = yield Statement("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM job_documents WHERE prompt_id = ?", (prompt_id,))
    yield Statement(
        "UPDATE jobs SET state = ?, ended_at_s = ?, started_at_s = ?, gpu_s = ?, error = ?, failing_class = ?, attempts = ?, "
        "wish = '', lease_until_s = 0.0, size = ?, version = ? WHERE prompt_id = ?",
        (*ended[:6], attempts, int(size[0][0]), state.version, prompt_id),
    )
    job = known._replace(
        state=ended.state,
        ended_at_s=ended.ended_at_s,
        started_at_s=ended.started_at_s,
        gpu_s=ended.gpu_s,
        error=ended.error,
        failing_class=ended.failing_class,
        attempts=attempts,
        wish="",
        lease_until_s=0.0,
        size=int(size[0][0]),
        version=state.version,
    )
    if ended.correction:
        yield from _correct(job.tenant, ended.correction)
    if ended.correction < 0:
        yield Statement(_TURN_BACK, (job.tenant, job.tenant, StoredState.WAITING, job.tenant))
    yield from announce(job, is_copied=ended.is_copied and ended.entry is not None)
    return job


def _keep_result(prompt_id: str, entry: bytes | None, row: bytes | None) -> Operation[None]:
    for kind, body in ((ENTRY, entry), (ROW, row)):
        if body is not None:
            yield Statement(
                "INSERT INTO job_documents VALUES (?, ?, ?) ON CONFLICT (prompt_id, kind) DO UPDATE SET body = excluded.body",
                (prompt_id, kind, body),
            )


def _close_attempt(attempts: str, ended_s: float, reason: str) -> str:
    told = orjson.loads(attempts)
    if told:
        told[-1] |= {"ended": ended_s, "reason": reason}
    return orjson.dumps(told).decode()


def _correct(tenant: str, correction: float) -> Operation[None]:
    yield Statement("UPDATE fair_tags SET finish_tag = finish_tag + ? WHERE tenant = ?", (correction, tenant))


def give_back(prompt_id: str, now_s: float, reason: str, number: float | None = None) -> Operation[JobRow | None]:
    """A job that ComfyUI had waits again, where it stood, and its tenant is not charged for it; the row as it is when it is at no ComfyUI.

    One that the operator wants to end is canceled instead. number: that it was given with, None for whichever: one that another gate has taken over and
    given anew runs there, and is left alone.
    """
    state = yield from begin()
    job = yield from find(prompt_id)
    if job is None or job.state not in (StoredState.DISPATCHED, StoredState.RUNNING):
        return job
    if number not in (None, job.number):
        return job
    attempts = _close_attempt(job.attempts, now_s, reason)
    done = yield Statement(
        "UPDATE jobs SET state = ?, started_at_s = NULL, gate = '', lease_until_s = 0.0, span = 0.0, attempts = ?, version = ? "
        f"WHERE prompt_id = ? RETURNING {COLUMNS}",
        (StoredState.WAITING, attempts, state.version, prompt_id),
    )
    yield from _correct(job.tenant, -job.span)
    if job.wish == CANCEL:
        yield from cancel_waiting(job.tenant, [prompt_id], now_s)
        return (yield from find(prompt_id))
    return JobRow(*done[0])


def stop_after(prompt_id: str, limit_s: int) -> Operation[None]:
    """The gate stops it, because it has run for so long."""
    state = yield from begin()
    yield Statement(
        "UPDATE jobs SET stopped_after_s = ?, version = ? WHERE prompt_id = ?", (limit_s, state.version, prompt_id)
    )


def cancel_waiting(tenant: str, prompt_ids: Sequence[str], now_s: float) -> Operation[list[str]]:
    """Ends those that wait; the ids of those."""
    state = yield from begin()
    canceled = []
    for prompt_id in prompt_ids:
        done = yield Statement(
            "UPDATE jobs SET state = ?, ended_at_s = ?, size = 0, version = ? "
            f"WHERE prompt_id = ? AND tenant = ? AND state = ? RETURNING {COLUMNS}",
            (StoredState.CANCELED, now_s, state.version, prompt_id, tenant, StoredState.WAITING),
        )
        if done:
            canceled.append(prompt_id)
            yield Statement("DELETE FROM job_documents WHERE prompt_id = ?", (prompt_id,))
            yield from announce(JobRow(*done[0]))
    return canceled


def forget(tenant: str, prompt_ids: Sequence[str]) -> Operation[None]:
    """Deletes jobs that are the tenant's; their ids are nobody else's for a while."""
    state = yield from begin()
    for prompt_id in prompt_ids:
        rows = yield Statement("SELECT span, state FROM jobs WHERE prompt_id = ? AND tenant = ?", (prompt_id, tenant))
        if not rows:
            continue
        yield from delete_job(prompt_id)
        if rows[0][1] == StoredState.DISPATCHED:
            yield from _correct(tenant, -rows[0][0])
        yield Statement(
            "INSERT INTO forgotten_jobs VALUES (?, ?, ?) ON CONFLICT (prompt_id) DO NOTHING",
            (prompt_id, tenant, state.version),
        )


def delete_job(prompt_id: str) -> Operation[None]:
    """With its documents, its labels, and the records of what it made."""
    for table in ("job_documents", "job_labels", "job_assets", "job_webhooks", "job_needs", "assets", "jobs"):
        yield Statement(f"DELETE FROM {table} WHERE prompt_id = ?", (prompt_id,))


def confirm(prompt_id: str) -> Operation[JobRow | None]:
    """ComfyUI has a job that was doubted; None when there is none of this id."""
    state = yield from begin()
    rows = yield Statement(
        f"UPDATE jobs SET wish = '', version = ? WHERE prompt_id = ? RETURNING {COLUMNS}", (state.version, prompt_id)
    )
    return JobRow(*rows[0]) if rows else None

"""What becomes of copies is written down for whoever outside is to be told, in the transaction that changes it; see proxy/jobs/outbox.py."""

from __future__ import annotations

import hashlib
from typing import Final

from policy.copies import CopyState
from policy.v2.jobs import Status
from policy.webhooks import Event
from proxy.jobs.copy_requests import Copy, disown_copies
from proxy.persistence.operations import Operation, Statement

_NOT_THERE: Final = (CopyState.WAITING, CopyState.FAILED)
_OF_JOB: Final = "prompt_id = ? AND tenant = ? AND ended_at_s = ?"


def tell_of_copy(copy: Copy) -> Operation[None]:
    """It was waiting, and is copied or has failed."""
    if copy.state == CopyState.FAILED:
        yield from tell_failed(copy.tenant, copy.prompt_id, copy.ended_at_s, copy.tried_at_s or copy.ended_at_s)
    elif copy.state == CopyState.COPIED:
        yield from _tell_if_stored(copy.tenant, copy.prompt_id, copy.ended_at_s)


def tell_of_none(job: Copy) -> Operation[None]:
    """The job has left no file: where it is one that succeeded, all there is of it is stored."""
    yield from _tell(Event.STORED, job.tenant, job.prompt_id, job.ended_at_s, job.ended_at_s, only=Status.SUCCEEDED)


def tell_failed(tenant: str, prompt_id: str, ended_at_s: float, at_s: float) -> Operation[None]:
    """A copy of the job's is not tried any more. at_s: Unix time, since when."""
    yield from _tell(Event.STORAGE_FAILED, tenant, prompt_id, ended_at_s, at_s)


def tell_never_made(tenant: str, prompt_id: str) -> Operation[None]:
    """The job leaves the history before it was looked up what it made, which is `lost` then (proxy/copies/copy_operations.py)."""
    rows = yield Statement(
        "SELECT ended_at_s FROM copies WHERE prompt_id = ? AND tenant = ? AND asset_id = '' AND state = ?",
        (prompt_id, tenant, CopyState.WAITING),
    )
    for (ended_at_s,) in rows:
        yield from tell_failed(tenant, prompt_id, ended_at_s, ended_at_s)


def disown(tenant: str, folder: str, path: str, stamp: str) -> Operation[None]:
    """See `disown_copies`. What is not wanted any more is not waited for either."""
    jobs = yield Statement(
        "SELECT DISTINCT prompt_id, ended_at_s FROM copies WHERE tenant = ? AND folder = ? AND path = ? AND stamp = ? AND state IN (?, ?)",
        (tenant, folder, path, stamp, *_NOT_THERE),
    )
    yield from disown_copies(tenant, folder, path, stamp)
    for prompt_id, ended_at_s in jobs:
        yield from _tell_if_stored(tenant, prompt_id, ended_at_s)


def _tell_if_stored(tenant: str, prompt_id: str, ended_at_s: float) -> Operation[None]:
    """Where the bucket has all of the job's files that there are copies of, and there is one."""
    job = (prompt_id, tenant, ended_at_s)
    if (yield Statement(f"SELECT 1 FROM copies WHERE {_OF_JOB} AND state IN (?, ?) LIMIT 1", (*job, *_NOT_THERE))):
        return
    [(copied_at_s,)] = yield Statement(
        f"SELECT MAX(copied_at_s) FROM copies WHERE {_OF_JOB} AND state IN (?, ?)",
        (*job, CopyState.COPIED, CopyState.WIPED),
    )
    if copied_at_s is not None:
        yield from _tell(Event.STORED, tenant, prompt_id, ended_at_s, copied_at_s)


def _tell(
    event: Event, tenant: str, prompt_id: str, ended_at_s: float, at_s: float, *, only: Status | None = None
) -> Operation[None]:
    """To each endpoint of the tenant that wants such an event, once; nobody where the job is deleted, or was tried again since. only: of jobs that ended so."""
    endpoints = yield Statement(
        "SELECT name, events FROM webhook_endpoints WHERE tenant = ? AND switched_off_s IS NULL", (tenant,)
    )
    names = [name for name, events in endpoints if event in events.split()]
    if not names:
        return
    jobs = yield Statement(
        f"SELECT state, created_at_s, started_at_s FROM jobs WHERE {_OF_JOB}", (prompt_id, tenant, ended_at_s)
    )
    for state, created_at_s, started_at_s in jobs:
        for name in names if only in (None, state) else ():
            yield Statement(
                "INSERT INTO webhook_deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0, '', NULL, '', '', ?, ?) ON CONFLICT (id) DO NOTHING",
                (
                    *(_message_id(event, name, tenant, prompt_id, ended_at_s), name, tenant, prompt_id, state),
                    *(created_at_s, started_at_s, ended_at_s, created_at_s, event, at_s),
                ),
            )


def _message_id(event: Event, endpoint: str, tenant: str, prompt_id: str, ended_at_s: float) -> str:
    """The same for every attempt, another one for each endpoint, event and end of a job that is tried again."""
    text = f"{event}/{endpoint}/{tenant}/{prompt_id}/{ended_at_s!r}"
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"

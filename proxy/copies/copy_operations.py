"""What is done with copies in the gate's database, each as one transaction (proxy/persistence/operations.py).

A copy that a gate works at just now is due again later, when that gate must have ended with it, or renewed its claim, or be gone: so it is made by one gate
at a time and never forgotten. Those that no gate can reach any more are due at once where a gate is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from policy.copies import CopyState
from policy.namespace import Folder
from proxy.jobs.copy_news import tell_failed, tell_of_copy, tell_of_none
from proxy.jobs.copy_requests import ADD_COPY, COPY_COLUMNS, Copy
from proxy.jobs.job_rows import StoredState
from proxy.persistence.operations import Operation, Statement

MAX_RENEWED: Final = 1000


class Split(StrEnum):
    """What has become of the record of a whole job. lost: the job is gone, and what it made. foreign: it is this gate's no more; nothing is done."""

    FOUND = "found"
    LOST = "lost"
    FOREIGN = "foreign"


class Kept(NamedTuple):
    """Bounds of what is remembered of a tenant. settled_since_s: Unix time of the oldest end, of what is not the only way to a file. most: of each state."""

    settled_since_s: float
    most: int


def next_due() -> Operation[dict[str, float]]:
    """When the next work is due, by tenant. One step for each of them, however many copies there are."""
    found: dict[str, float] = {}
    last = ""
    while rows := (
        yield Statement(
            "SELECT tenant, due_at_s FROM copies WHERE due_at_s IS NOT NULL AND tenant > ? ORDER BY tenant, due_at_s LIMIT 1",
            (last,),
        )
    ):
        [(last, due_at_s)] = rows
        found[last] = due_at_s
    return found


def claim(tenant: str, gate: str, now_s: float, until_s: float) -> Operation[Copy | None]:
    """What has been due the longest: it is this gate's until the time given."""
    rows = yield Statement(
        "UPDATE copies SET gate = ?, due_at_s = ? WHERE copy_id = (SELECT copy_id FROM copies WHERE tenant = ? AND due_at_s <= ? "
        f"ORDER BY due_at_s, copy_id LIMIT 1) AND tenant = ? RETURNING {COPY_COLUMNS}",
        (gate, until_s, tenant, now_s, tenant),
    )
    return Copy(*rows[0]) if rows else None


def renew(copy: Copy, until_s: float) -> Operation[bool]:
    """The claim, while the work goes on; False where it is this gate's no more."""
    rows = yield Statement(
        "UPDATE copies SET due_at_s = ? WHERE copy_id = ? AND gate = ? AND state = ? RETURNING copy_id",
        (until_s, copy.copy_id, copy.gate, copy.state),
    )
    return bool(rows)


def settle(copy: Copy, was: Copy) -> Operation[bool]:
    """What has become of it; False where it is this gate's no more. was: as it was claimed."""
    rows = yield Statement(
        "UPDATE copies SET state = ?, copied_at_s = ?, due_at_s = ?, gate = ?, attempts = ?, tried_at_s = ?, note = ?, form_hash = ?, form_bytes = ? "
        "WHERE copy_id = ? AND gate = ? AND state = ? RETURNING copy_id",
        (
            *(copy.state, copy.copied_at_s, copy.due_at_s, copy.gate, copy.attempts, copy.tried_at_s, copy.note),
            *(copy.form_hash, copy.form_bytes),
            *(was.copy_id, was.gate, was.state),
        ),
    )
    if rows and was.state == CopyState.WAITING:
        yield from tell_of_copy(copy)
    return bool(rows)


def split(job: Copy, files: Sequence[Copy]) -> Operation[Split]:
    """It is known what the job made: a copy of each file takes its place. Nobody is told of a job that is gone."""
    done = yield Statement(
        "DELETE FROM copies WHERE copy_id = ? AND gate = ? RETURNING copy_id", (job.copy_id, job.gate)
    )
    if not done:
        return Split.FOREIGN
    for each in files:
        yield Statement(ADD_COPY, each)
    if files:
        return Split.FOUND
    # What is tried again, or was since, has a record of its own when it ends.
    if not (yield Statement("SELECT 1 FROM jobs WHERE prompt_id = ? AND tenant = ?", (job.prompt_id, job.tenant))):
        return Split.LOST
    yield from tell_of_none(job)
    return Split.FOUND


def remove(copy: Copy) -> Operation[None]:
    """The bucket has it no more."""
    yield Statement("DELETE FROM copies WHERE copy_id = ? AND state = ?", (copy.copy_id, CopyState.UNWANTED))


def find_copy(copy_id: str) -> Operation[Copy | None]:
    rows = yield Statement(f"SELECT {COPY_COLUMNS} FROM copies WHERE copy_id = ?", (copy_id,))
    return Copy(*rows[0]) if rows else None


def copies_of_job(tenant: str, prompt_id: str) -> Operation[list[Copy]]:
    """Those that the bucket has, of files as the job made them and in other forms."""
    return (yield from _there("prompt_id = ?", tenant, prompt_id))


def copies_of_asset(tenant: str, asset_id: str) -> Operation[list[Copy]]:
    """Those that the bucket has, of the file as it is."""
    return (yield from _there("asset_id = ? AND form = ''", tenant, asset_id))


def forms_of_job(tenant: str, prompt_id: str) -> Operation[list[Copy]]:
    """Those that the bucket has, of files in another form."""
    return (yield from _there("prompt_id = ? AND form <> ''", tenant, prompt_id))


def _there(where: str, tenant: str, parameter: str) -> Operation[list[Copy]]:
    rows = yield Statement(
        f"SELECT {COPY_COLUMNS} FROM copies WHERE {where} AND tenant = ? AND state IN (?, ?) ORDER BY ended_at_s",
        (parameter, tenant, CopyState.COPIED, CopyState.WIPED),
    )
    return [Copy(*row) for row in rows]


def wiped(tenant: str, folder: str, path: str, stamp: str | None) -> Operation[Copy | None]:
    """The copy of a file that the bucket alone has. stamp: of its original; None for the newest one of that name."""
    is_that, parameters = ("", ()) if stamp is None else (" AND stamp = ?", (stamp,))
    rows = yield Statement(
        f"SELECT {COPY_COLUMNS} FROM copies WHERE tenant = ? AND folder = ? AND path = ? AND state = ?{is_that} ORDER BY copied_at_s DESC LIMIT 1",
        (tenant, folder, path, CopyState.WIPED, *parameters),
    )
    return Copy(*rows[0]) if rows else None


def of_name(tenant: str, folder: str, path: str, prompt_id: str = "") -> Operation[Copy | None]:
    """The newest record of a file of that name, whatever has become of it. prompt_id: of the job that made it, "" for any."""
    is_its, parameters = (" AND prompt_id = ?", (prompt_id,)) if prompt_id else ("", ())
    rows = yield Statement(
        f"SELECT {COPY_COLUMNS} FROM copies WHERE tenant = ? AND folder = ? AND path = ? AND form = ''{is_its} ORDER BY ended_at_s DESC LIMIT 1",
        (tenant, folder, path, *parameters),
    )
    return Copy(*rows[0]) if rows else None


def of_file(tenant: str, folder: str, path: str, stamp: str, digest: str = "") -> Operation[Copy | None]:
    """The copy of a file that the bucket has. stamp: of its original. digest: of its bytes, "" for any."""
    is_it, parameters = (" AND hash = ?", (digest,)) if digest else ("", ())
    rows = yield Statement(
        f"SELECT {COPY_COLUMNS} FROM copies WHERE tenant = ? AND folder = ? AND path = ? AND stamp = ? AND form = ''{is_it} AND state IN (?, ?) "
        "ORDER BY copied_at_s DESC LIMIT 1",
        (tenant, folder, path, stamp, *parameters, CopyState.COPIED, CopyState.WIPED),
    )
    return Copy(*rows[0]) if rows else None


def may_have_written(copy: Copy, limit: int) -> Operation[list[tuple[str, float, str]]]:
    """Id, end and ComfyUI of jobs that ended since a file of that name was made, and of whose files it is not known which they are."""
    rows = yield Statement(
        "SELECT jobs.prompt_id, jobs.ended_at_s, jobs.comfyui FROM copies JOIN jobs ON jobs.prompt_id = copies.prompt_id AND jobs.tenant = copies.tenant "
        "WHERE copies.tenant = ? AND copies.state IN (?, ?) AND copies.ended_at_s >= ? AND copies.asset_id = '' AND jobs.ended_at_s IS NOT NULL LIMIT ?",
        (copy.tenant, CopyState.WAITING, CopyState.FAILED, copy.ended_at_s, limit),
    )
    stopped = yield Statement(
        "SELECT prompt_id, ended_at_s, comfyui FROM jobs WHERE state = ? AND tenant = ? AND ended_at_s >= ? AND started_at_s IS NOT NULL LIMIT ?",
        (StoredState.CANCELED, copy.tenant, copy.ended_at_s, limit),
    )
    return [(str(prompt_id), float(ended_at_s), str(comfyui)) for prompt_id, ended_at_s, comfyui in rows + stopped]


def newest_hash(copy: Copy) -> Operation[str]:
    """Of the newest file of that name that was measured; "" where none was."""
    rows = yield Statement(
        "SELECT hash FROM assets WHERE tenant = ? AND folder = ? AND path = ? AND hash <> '' AND prompt_id <> '' ORDER BY created_at_s DESC LIMIT 1",
        (copy.tenant, copy.folder, copy.path),
    )
    return str(rows[0][0]) if rows else ""


def is_in_use(copy: Copy, unfinished: Sequence[str]) -> Operation[bool]:
    """Whether a job that has not ended uses the original by the id of an asset. unfinished: states of such jobs."""
    places = ", ".join("?" * len(unfinished))
    rows = yield Statement(
        f"SELECT 1 FROM jobs CROSS JOIN job_assets CROSS JOIN assets WHERE jobs.state IN ({places}) AND jobs.tenant = ? "
        "AND job_assets.prompt_id = jobs.prompt_id AND assets.asset_id = job_assets.asset_id AND assets.tenant = ? AND assets.folder = ? "
        "AND assets.path = ? LIMIT 1",
        (*unfinished, copy.tenant, copy.tenant, copy.folder, copy.path),
    )
    return bool(rows)


def is_still_read(copy: Copy) -> Operation[bool]:
    """Whether another copy is still to be made of the original, or could not be."""
    rows = yield Statement(
        "SELECT 1 FROM copies WHERE tenant = ? AND folder = ? AND path = ? AND stamp = ? AND copy_id <> ? AND state IN (?, ?) LIMIT 1",
        (copy.tenant, copy.folder, copy.path, copy.stamp, copy.copy_id, CopyState.WAITING, CopyState.FAILED),
    )
    return bool(rows)


def set_keep_local(keep_s: float | None) -> Operation[None]:
    """When originals of what is copied are wiped, by the configuration in force. None: never."""
    due, parameters = ("NULL", ()) if keep_s is None else ("copied_at_s + ?", (keep_s,))
    yield Statement(
        f"UPDATE copies SET due_at_s = {due} WHERE state = ? AND folder = ? AND form = '' AND gate = ''",
        (*parameters, CopyState.COPIED, Folder.OUTPUT),
    )


def release(gate: str | None, now_s: float) -> Operation[None]:
    """What a gate that stops was working at is done by whoever comes next; None: by a gate that is alone, and has just started."""
    if gate is None:
        yield Statement("UPDATE copies SET gate = '', due_at_s = ? WHERE gate <> ''", (now_s,))
    else:
        yield Statement("UPDATE copies SET gate = '', due_at_s = ? WHERE gate = ?", (now_s, gate))


def resend(copy_ids: Sequence[str], now_s: float) -> Operation[list[Copy]]:
    """The operator wants them made, now and tried as often as new ones. Those that wait or have failed."""
    found = []
    for each in copy_ids:
        rows = yield Statement(
            f"UPDATE copies SET state = ?, due_at_s = ?, gate = '', attempts = 0 WHERE copy_id = ? AND state IN (?, ?) RETURNING {COPY_COLUMNS}",
            (CopyState.WAITING, now_s, each, CopyState.WAITING, CopyState.FAILED),
        )
        found += [Copy(*row) for row in rows]
    return found


def failed_ids(limit: int = MAX_RENEWED) -> Operation[list[str]]:
    rows = yield Statement(
        "SELECT copy_id FROM copies WHERE state = ? ORDER BY ended_at_s LIMIT ?", (CopyState.FAILED, limit)
    )
    return [copy_id for (copy_id,) in rows]


def tenants() -> Operation[list[str]]:
    """Of whom there is anything."""
    found: list[str] = []
    while rows := (
        yield Statement(
            "SELECT tenant FROM copies WHERE tenant > ? ORDER BY tenant LIMIT 1", (found[-1] if found else "",)
        )
    ):
        found.append(rows[0][0])
    return found


def trim(tenant: str, kept: Kept) -> Operation[int]:
    """Takes away records that are too old or too many, the oldest first; no copy is deleted. How many of those were still to be made.

    A record of a copy is kept as long as its job, or as it is the only way to the file.
    """
    yield Statement(
        "DELETE FROM copies WHERE tenant = ? AND ended_at_s < ? AND (state = ? OR (state = ? AND due_at_s IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM jobs WHERE jobs.prompt_id = copies.prompt_id AND jobs.tenant = copies.tenant)))",
        (tenant, kept.settled_since_s, CopyState.FAILED, CopyState.COPIED),
    )
    lost = 0
    for state in CopyState:
        gone = yield Statement(
            "DELETE FROM copies WHERE copy_id IN (SELECT copy_id FROM copies WHERE tenant = ? AND state = ? "
            "ORDER BY ended_at_s DESC, copy_id LIMIT 1000000 OFFSET ?) RETURNING prompt_id, ended_at_s",
            (tenant, state, kept.most),
        )
        if state == CopyState.WAITING:
            lost = len(gone)
            for prompt_id, ended_at_s in set(gone):
                yield from tell_failed(tenant, prompt_id, ended_at_s, ended_at_s)
    return lost


def listing(tenant: str | None, states: Sequence[str], limit: int) -> Operation[list[Copy]]:
    """The newest ends first. states: none for all."""
    wheres, parameters = ["1 = 1"], []
    if tenant is not None:
        wheres.append("tenant = ?")
        parameters.append(tenant)
    if states:
        wheres.append(f"state IN ({', '.join('?' * len(states))})")
        parameters += states
    rows = yield Statement(
        f"SELECT {COPY_COLUMNS} FROM copies WHERE {' AND '.join(wheres)} ORDER BY ended_at_s DESC, copy_id LIMIT ?",
        (*parameters, limit),
    )
    return [Copy(*row) for row in rows]


def counts(tenant: str) -> Operation[dict[str, int]]:
    """How many are not as they should be yet, by state."""
    rows = yield Statement(
        "SELECT state, COUNT(*) FROM copies WHERE tenant = ? AND state IN (?, ?, ?) GROUP BY state",
        (tenant, CopyState.WAITING, CopyState.FAILED, CopyState.UNWANTED),
    )
    return {state: int(count) for state, count in rows}

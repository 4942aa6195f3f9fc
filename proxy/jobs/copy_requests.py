"""That what a job made is to be copied is written down with its end: a gate that is killed forgets none. proxy/copies/ makes the copies."""

from __future__ import annotations

from typing import Final, NamedTuple

from policy.copies import CopyState, job_copy_id
from policy.principal import TenantId
from proxy.jobs.job_rows import JobRow
from proxy.persistence.operations import Operation, Statement


class Copy(NamedTuple):
    """Of one file that a job made, or what is to be found out of a job. Times are Unix seconds.

    asset_id: "" for the job as a whole, and then nothing is known of a file. folder, path, stamp, hash, size_bytes, content_type: of the original (see
    policy.v2.assets.Asset). object_key: the copy's name. due_at_s: None when nothing more is to be done. gate: which does it just now. attempts: that
    failed. note: of the last one. form: the mark of the recipe by which it is made of the original (policy.functions.conversion), "" for a copy of that
    itself; form_hash, form_bytes: what came of it, when it is copied.
    """

    copy_id: str
    tenant: str
    prompt_id: str
    asset_id: str = ""
    state: str = CopyState.WAITING
    folder: str = ""
    path: str = ""
    stamp: str = ""
    hash: str = ""
    size_bytes: int = 0
    content_type: str = ""
    object_key: str = ""
    ended_at_s: float = 0.0
    copied_at_s: float | None = None
    due_at_s: float | None = None
    gate: str = ""
    attempts: int = 0
    tried_at_s: float | None = None
    note: str = ""
    form: str = ""
    form_hash: str = ""
    form_bytes: int = 0

    @property
    def is_whole_job(self) -> bool:
        return not self.asset_id

    @property
    def stored_bytes(self) -> int:
        """Of the object, when it is there."""
        return self.form_bytes if self.form else self.size_bytes


COPY_COLUMNS: Final = ", ".join(Copy._fields)
COPY_PLACES: Final = ", ".join("?" * len(Copy._fields))
ADD_COPY: Final = f"INSERT INTO copies ({COPY_COLUMNS}) VALUES ({COPY_PLACES}) ON CONFLICT (copy_id) DO NOTHING"


def request_copies(job: JobRow) -> Operation[None]:
    """Of all that it made; part of the transaction that ends it."""
    assert job.ended_at_s is not None, "it has ended"
    copy_id = job_copy_id(TenantId(job.tenant), job.prompt_id, job.sequence, job.ended_at_s)
    # At once: the end may be of ComfyUI's clock, and the submission is of the gate's.
    made = Copy(
        copy_id, job.tenant, job.prompt_id, ended_at_s=job.ended_at_s, due_at_s=min(job.created_at_s, job.ended_at_s)
    )
    yield Statement(ADD_COPY, made)


def disown_copies(tenant: str, folder: str, path: str, stamp: str) -> Operation[None]:
    """Nothing is a record of this file any more: its copies are deleted as soon as may be. stamp: see policy.v2.assets.Asset.

    One that a gate works at just now is so when that has ended or its claim is over: what it may put there meanwhile would stay.
    """
    yield Statement(
        "UPDATE copies SET state = ?, due_at_s = CASE gate WHEN '' THEN ended_at_s ELSE due_at_s END, gate = '', attempts = 0, note = '' "
        "WHERE tenant = ? AND folder = ? AND path = ? AND stamp = ?",
        (CopyState.UNWANTED, tenant, folder, path, stamp),
    )

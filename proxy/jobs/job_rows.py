"""A job as it stands in the gate's database."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from policy.needs import Needs


class StoredState(StrEnum):
    """waiting: recorded, not at a ComfyUI. dispatched: in a ComfyUI's queue. The last three are ends."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


CANCEL: Final = "cancel"
"""The wish of a job that the operator wants to end."""
SUBMITTED: Final = ("body", "originals", "outputs")
ENTRY: Final = "entry"
ROW: Final = "row"
"""Kinds of a job's documents."""
MEASURED: Final = "measured"
"""That what a job has made is among the assets, and how it failed, as JSON (proxy/v2/job_operations.py)."""

ENDS: Final = frozenset({StoredState.SUCCEEDED, StoredState.FAILED, StoredState.CANCELED})


class Submitted(NamedTuple):
    """What ComfyUI is sent, but for id and number (policy.rules.prompt.Prepared), and what is needed to show it. outputs: ids, as JSON."""

    body: bytes
    originals: bytes
    outputs: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.body) + len(self.originals) + len(self.outputs)


class JobRow(NamedTuple):
    """Times are Unix seconds, the rest is as in proxy.jobs.job.Job. rank: the priority, negated. span: what the tenant was charged for it.

    attempts: JSON, one object for each time that ComfyUI had the job: {"at", "comfyui", "ended", "reason"}. size: of its documents, in bytes.
    wish: what the operator asked for and the gate has still to do ("" or "cancel").
    """

    prompt_id: str
    tenant: str
    subject: str = ""
    client_id: str = ""
    workflow: str = ""
    state: str = StoredState.WAITING
    sequence: int = 0
    rank: float = 0.0
    cost_s: float = 1.0
    span: float = 0.0
    number: float = 0.0
    created_at_s: float = 0.0
    started_at_s: float | None = None
    ended_at_s: float | None = None
    gpu_s: float = 0.0
    error: str = ""
    failing_class: str = ""
    comfyui: str = ""
    gate: str = ""
    lease_until_s: float = 0.0
    attempts: str = "[]"
    stopped_after_s: int | None = None
    wish: str = ""
    size: int = 0
    version: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDS

    @property
    def left_no_trace(self) -> bool:
        """Canceled before it began: as in ComfyUI, its tenant does not see it any more."""
        return self.state == StoredState.CANCELED and not self.size

    def told_attempts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [] if self.attempts == "[]" else orjson.loads(self.attempts)
        return found


COLUMNS: Final = ", ".join(JobRow._fields)
PLACES: Final = ", ".join("?" * len(JobRow._fields))


class Ended(NamedTuple):
    """How a job ended. correction: what its tenant's finish tag is wrong by. entry, row: as its tenant sees them in history and job list, None for none.
    body: what is kept of a submission that failed, to be tried again, in the place of what was sent; None where that stays as it is.
    is_copied: whether what it made is to be copied.
    """

    state: StoredState
    ended_at_s: float
    started_at_s: float | None = None
    gpu_s: float = 0.0
    error: str = ""
    failing_class: str = ""
    correction: float = 0.0
    entry: bytes | None = None
    row: bytes | None = None
    body: bytes | None = None
    is_copied: bool = False


class Given(NamedTuple):
    """A job that goes to ComfyUI now. needs: None where there is one ComfyUI, or they are not known. changes_models: it needs other models than the job
    before it with models there."""

    job: JobRow
    submitted: Submitted
    needs: Needs | None = None
    changes_models: bool = False


class Lease(NamedTuple):
    """until_s: Unix time."""

    prompt_id: str
    gate: str
    until_s: float


class Changes(NamedTuple):
    """What was written after a version. forgotten: ids that are gone."""

    version: int
    jobs: list[JobRow]
    forgotten: list[str]


class Bounds(NamedTuple):
    """How much of a tenant's ended jobs is kept. oldest_s: Unix time of the oldest end."""

    oldest_s: float
    max_jobs: int
    max_bytes: int

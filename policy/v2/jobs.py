"""The contract's Job, made of what the gate knows of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

import orjson

from policy.v2.assets import Asset, output_to_client
from policy.v2.links import Links
from policy.v2.progress import Progress
from policy.v2.times import timestamp, timestamp_or_null
from policy.values import value


class Status(StrEnum):
    """Of a job, in the contract's words; `expired` is one that is not kept any more, which answers as none."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    FAILED = "failed"


_MAX_WRITTEN: Final = 2
"""Of one job: who sees it does so at one address."""
ENDED = frozenset({Status.SUCCEEDED, Status.CANCELED, Status.FAILED})


@value
class JobError:
    """code: `node_execution_error`, `out_of_memory`, `lost`, `deadline_exceeded` or `invalid_workflow`. node_id, class_type: of the node that failed."""

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None

    def to_client(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "node_id": self.node_id,
            "class_type": self.class_type,
            "traceback": None,
        }


@value
class JobView:
    """Times are Unix seconds. queue_position: among the tenant's own that wait. keep_until_s: until when it is kept at least, as far as is known."""

    prompt_id: str
    status: Status
    created_at_s: float
    keep_until_s: float
    started_at_s: float | None = None
    ended_at_s: float | None = None
    queue_position: int | None = None
    progress: Progress | None = None
    outputs: tuple[Asset, ...] = ()
    error: JobError | None = None
    labels: Mapping[str, str] | None = None
    written: dict[Links, bytes] = field(default_factory=dict, init=False, compare=False, repr=False)
    """As JSON, by where it is seen: see `write_job`. One that is changed has its own."""

    @property
    def updated_at_s(self) -> float:
        return self.ended_at_s or self.started_at_s or self.created_at_s


def write_job(job: JobView, links: Links) -> bytes:
    """The contract's Job as JSON. What has ended is shown as long as somebody asks, and always the same: it is written once."""
    if job.ended_at_s is None:
        return orjson.dumps(job_to_client(job, links))
    written = job.written.get(links)
    if written is None:
        if len(job.written) >= _MAX_WRITTEN:
            job.written.clear()
        written = job.written[links] = orjson.dumps(job_to_client(job, links))
    return written


def job_to_client(job: JobView, links: Links) -> dict[str, Any]:
    """The contract's Job: every key is there, also where it is null."""
    here = links.job(job.prompt_id)
    return {
        "id": job.prompt_id,
        "status": job.status.value,
        "created_at": timestamp(job.created_at_s),
        "started_at": timestamp_or_null(job.started_at_s),
        "completed_at": timestamp_or_null(job.ended_at_s),
        "expires_at": timestamp(job.keep_until_s),
        "queue_position": job.queue_position,
        "progress": None if job.progress is None else job.progress.to_client(),
        "outputs": [output_to_client(output, links, job.keep_until_s) for output in job.outputs],
        "error": None if job.error is None else job.error.to_client(),
        "metrics": _metrics(job),
        "urls": {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"},
        "metadata": dict(job.labels or {}),
    }


def row_to_client(job: JobView) -> dict[str, Any]:
    """Of a list: lighter than a Job. Both spellings of the times, since readers of Jobs know one and readers of lists the other."""
    created, updated = timestamp(job.created_at_s), timestamp(job.updated_at_s)
    return {
        "id": job.prompt_id,
        "status": job.status.value,
        "create_time": created,
        "created_at": created,
        "update_time": updated,
        "updated_at": updated,
        "metadata": dict(job.labels or {}),
    }


def _metrics(job: JobView) -> dict[str, int | None]:
    """Whole milliseconds; the contract takes no others. What is not known yet is null, and so is never the object: the TypeScript SDK's schema takes none."""
    queue_s = None if job.started_at_s is None else job.started_at_s - job.created_at_s
    run_s = None if job.started_at_s is None or job.ended_at_s is None else job.ended_at_s - job.started_at_s
    return {"queue_ms": _whole_ms(queue_s), "execution_ms": _whole_ms(run_s)}


def _whole_ms(duration_s: float | None) -> int | None:
    return None if duration_s is None else max(0, round(duration_s * 1000))

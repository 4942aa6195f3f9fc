"""A job's state in the words of the API: as it stands in the gate's database, and as it is in memory."""

from __future__ import annotations

from typing import Final

from policy.v2.jobs import Status
from proxy.jobs.index import TenantJobs
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState

_STATUS: Final = {
    StoredState.WAITING: Status.QUEUED,
    StoredState.DISPATCHED: Status.QUEUED,
    StoredState.RUNNING: Status.RUNNING,
    StoredState.SUCCEEDED: Status.SUCCEEDED,
    StoredState.FAILED: Status.FAILED,
    StoredState.CANCELED: Status.CANCELED,
}


def status_of(row: JobRow) -> Status:
    if row.wish == CANCEL and not row.has_ended and row.state != StoredState.WAITING:
        return Status.CANCELING
    return _STATUS[StoredState(row.state)]


def status_of_job(job: Job) -> Status:
    """Of one that has not ended."""
    if job.is_unwanted and job.state not in (JobState.WAITING, JobState.CLAIMED):
        return Status.CANCELING
    return Status.RUNNING if job.state is JobState.RUNNING else Status.QUEUED


def place_in_queue(jobs: TenantJobs, job: Job) -> int | None:
    """Among the tenant's own that wait, from 1; None for one that runs. jobs: its tenant's."""
    if job.state is JobState.RUNNING:
        return None
    return jobs.position_of(job.prompt_id)

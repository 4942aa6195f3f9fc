"""What was read of jobs, kept in memory for those who ask again and again: a program that waits asks every few seconds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from proxy.jobs.job import Job, JobState
from proxy.v2.job_operations import StoredJob

MAX_JOBS: Final = 2048
MAX_OUTPUTS: Final = 50
"""Of a job that is kept; one with more is read each time."""


class KeptJobs:
    """The oldest give way."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, StoredJob] = OrderedDict()

    def of(self, job: Job) -> StoredJob | None:
        """What is still true of this job: of one that has ended all of it, of another its labels alone. None where nothing is.

        An id may come again: by its place among all jobs it is known that it is the same job.
        """
        kept = self._kept.get(job.prompt_id)
        if kept is None or kept.row.sequence != job.sequence or kept.row.tenant != job.tenant:
            return None
        return kept if job.state is not JobState.ENDED or kept.row.version == job.version else None

    def put(self, stored: StoredJob) -> None:
        if len(stored.outputs) > MAX_OUTPUTS:
            return
        self._kept[stored.row.prompt_id] = stored
        self._kept.move_to_end(stored.row.prompt_id)
        if len(self._kept) > MAX_JOBS:
            self._kept.popitem(last=False)

    def forget(self, prompt_id: str) -> None:
        """Something that it made is deleted."""
        self._kept.pop(prompt_id, None)

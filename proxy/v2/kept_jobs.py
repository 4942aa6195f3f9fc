"""What was read of jobs, kept in memory for those who ask again and again: a program that waits asks every few seconds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from policy.v2.jobs import JobView
from proxy.jobs.job import Job, JobState
from proxy.v2.job_operations import StoredJob

MAX_JOBS: Final = 2048
MAX_OUTPUTS: Final = 50
"""Of a job that is kept; one with more is read each time."""
MAX_ALL_OUTPUTS: Final = 10_000
"""Of all that are kept: about a kilobyte each."""


class KeptJobs:
    """The oldest give way."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, StoredJob] = OrderedDict()
        self._views: dict[str, tuple[float, JobView]] = {}
        self._outputs = 0

    def of(self, job: Job) -> StoredJob | None:
        """What is still true of this job: of one that has ended all of it, of another its labels alone. None where nothing is.

        An id may come again: by its place among all jobs it is known that it is the same job.
        """
        kept = self._kept.get(job.prompt_id)
        if kept is None or kept.row.sequence != job.sequence or kept.row.tenant != job.tenant:
            return None
        return kept if job.state is not JobState.ENDED or kept.row.version == job.version else None

    def view(self, stored: StoredJob, history_s: float, make: Callable[[StoredJob], JobView]) -> JobView:
        """Of a job that has ended, made once where it is kept. history_s: how long ended jobs are kept, of which the view tells."""
        prompt_id = stored.row.prompt_id
        known = self._views.get(prompt_id)
        if known is not None and known[0] == history_s and self._kept.get(prompt_id) is stored:
            return known[1]
        view = make(stored)
        if self._kept.get(prompt_id) is stored:
            self._views[prompt_id] = (history_s, view)
        return view

    def put(self, stored: StoredJob) -> None:
        if len(stored.outputs) > MAX_OUTPUTS:
            return
        self.forget(stored.row.prompt_id)
        self._kept[stored.row.prompt_id] = stored
        self._outputs += len(stored.outputs)
        while len(self._kept) > MAX_JOBS or self._outputs > MAX_ALL_OUTPUTS:
            self.forget(next(iter(self._kept)))

    def forget(self, prompt_id: str) -> None:
        """Something that it made is deleted."""
        self._views.pop(prompt_id, None)
        kept = self._kept.pop(prompt_id, None)
        if kept is not None:
            self._outputs -= len(kept.outputs)

"""Which tenant owns which job, and how far it is: a cache of what ComfyUI knows, rebuilt from its queue and history at any start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from policy.namespace import Namespace, owner_of
from policy.principal import TenantId, parse_tenant
from policy.prompt_ids import is_prompt_id
from policy.rules.results import UNNAMED_CLIENT
from proxy.jobs.job import Job, JobState, Outcome, read_history
from proxy.jobs.known_jobs import KnownJobs
from proxy.jobs.temp_files import Made, WrittenAt, unseen

__all__ = ["Job", "JobRegistry", "JobState", "Outcome", "read_history"]


MAX_ENDED_JOBS: Final = 10_000
"""What ComfyUI itself keeps in its history, of all tenants together."""


def _mint() -> str:
    """A random UUID (RFC 9562, 5.4) in half of the time that `uuid` takes."""
    digits = os.urandom(16).hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"
    )


class JobRegistry(KnownJobs):
    """written_at: when a file of ComfyUI's temp folder was written, where the gate sees the folder."""

    def __init__(self, clock: Callable[[], float] = time.time, written_at: WrittenAt = unseen) -> None:
        super().__init__(written_at)
        self._clock = clock
        self._unowned: dict[str, None] = {}
        self._retired: dict[str, TenantId] = {}

    def claim(
        self, tenant: TenantId, wish: str | None, *, subject: str = "", workflow: str = "", client_id: str = ""
    ) -> Job:
        """Owns a job before it exists upstream. A wished id is kept when it is a canonical UUID that nobody has, or lately had.

        SECURITY: that another tenant's job is gone gives its id to nobody else: what still asks for it asks for its own (tests/proxy/jobs/test_registry.py).
        """
        is_free = (
            wish is not None
            and is_prompt_id(wish)
            and not self.knows(wish)
            and self._retired.get(wish, tenant) == tenant
        )
        prompt_id = wish if wish and is_free else _mint()
        job = Job(prompt_id, tenant, subject, workflow, claimed_at_s=self._clock(), client_id=client_id)
        self._add(job)
        return job

    def submitted(self, prompt_id: str, number: float) -> None:
        """ComfyUI took the job. number: its place in ComfyUI's queue. Unknown ids are ignored."""
        job = self._jobs.get(prompt_id)
        if job is not None:
            job.number = number
            if job.state is JobState.CLAIMED:
                job.state = JobState.PENDING

    def release(self, prompt_id: str) -> None:
        """The job never came to be, or is gone from the history: its id is nobody else's for a while. Unknown ids are ignored."""
        job = self.job(prompt_id)
        if job is not None:
            self._drop(job)
            self.temp_files.release(job)
            self._retired[prompt_id] = job.tenant
            while len(self._retired) > MAX_ENDED_JOBS:
                del self._retired[next(iter(self._retired))]

    def adopt(self, prompt_id: str, client_id: object, state: JobState, number: float = 0.0) -> Job | None:
        """Takes up a job found upstream when its client id names a tenant; None for one that the gate did not send."""
        known = self._jobs.get(prompt_id)
        if known is not None:
            return known
        tenant = _tenant_of(client_id)
        if tenant is None:
            return None
        own_id = Namespace(tenant).client_id_to_client(client_id) or ""
        own_id = "" if own_id == UNNAMED_CLIENT else own_id
        job = Job(prompt_id, tenant, number=number, state=state, claimed_at_s=self._clock(), client_id=own_id)
        self._add(job)
        return job

    def mark_unowned(self, prompt_id: str) -> None:
        """ComfyUI has a job that no tenant sent. SECURITY: a tenant that claimed its id would see it (tests/matrix/test_reuse.py)."""
        self._unowned[prompt_id] = None
        while len(self._unowned) > MAX_ENDED_JOBS:
            del self._unowned[next(iter(self._unowned))]

    def knows(self, prompt_id: str) -> bool:
        """Whether it is known whose job this is, or that it is nobody's."""
        return prompt_id in self._jobs or prompt_id in self._unowned

    def start(self, job: Job, at_s: float | None = None) -> bool:
        """Marks a job as running; says whether that is news."""
        if job.state in (JobState.RUNNING, JobState.ENDED):
            return False
        job.state = JobState.RUNNING
        job.started_at_s = self._clock() if at_s is None else at_s
        self._index(job)
        return True

    def mark_over(self, prompt_id: str) -> None:
        """Its client was told that it ended, and may ask for the list of what ended before the queue watcher has."""
        job = self._jobs.get(prompt_id)
        if job is not None and job.over_at_s is None:
            job.over_at_s = self._clock()
            self._index(job)

    def mark_heard(self, prompt_ids: Iterable[str]) -> None:
        """Their client was told that they ended."""
        for prompt_id in prompt_ids:
            if (job := self.job(prompt_id)) is not None:
                job.was_heard = True

    def add_temp_files(self, prompt_id: str, names: Iterable[str], made: Made = Made.UNKNOWN) -> None:
        """Files that an event or an answer named before the end of the job was read: its client asks for them at once.

        SECURITY: what a job that ended lists is no news: its names may be somebody else's by now (tests/matrix/test_reuse.py).
        """
        job = self._jobs.get(prompt_id)
        if job is not None and job.state is not JobState.ENDED:
            for name in names:
                self.temp_files.claim(job, name, made)

    def forget_temp_files(self, names: Iterable[str]) -> None:
        """These are gone, or about to go: nobody may see what ComfyUI will write under the same names."""
        self.temp_files.forget(names)

    def old_temp_files(self, tenant: TenantId, age_s: float) -> dict[str, float]:
        """Preview files of the tenant's jobs that ended that long ago; a file newer than the time beside its name is another one."""
        return self.temp_files.older(tenant, self._clock() - age_s)

    def end(self, job: Job, entry: Mapping[str, Any] | None, *, was_watched: bool = False) -> bool:
        """Closes a job with its history entry, None when ComfyUI has none; says whether that is news.

        was_watched: the gate was connected all the time, so that a job without an entry was deleted and not lost.
        """
        if job.state is JobState.ENDED:
            return False
        job.state = JobState.ENDED
        job.ended_at_s = self._clock()
        files = read_history(job, entry)
        if was_watched and job.outcome is Outcome.LOST and job.started_at_s is not None:
            # SECURITY: who deletes a job from the history, or makes its entry unreadable, before the gate has read it, has used the GPU
            # all the same (tests/security/test_unreadable.py).
            job.gpu_s = max(0.0, job.ended_at_s - job.started_at_s)
        for name, made in files.items():
            self.temp_files.claim(job, name, made)
        if job.is_deleted:
            self.temp_files.release(job)
        self._close(job)
        while len(self._ended) > MAX_ENDED_JOBS:
            self.release(next(iter(self._ended)))
        return True

    def forget_history(self, prompt_ids: Iterable[str]) -> None:
        """ComfyUI deleted these from its history."""
        for prompt_id in prompt_ids:
            job = self._jobs.get(prompt_id)
            if job is not None and job.state is JobState.ENDED:
                self.release(prompt_id)
            elif job is not None and job.is_over:
                job.is_deleted = True
                self.temp_files.release(job)
                self._index(job)

    def forget_restarted(self, prompt_ids: Iterable[str]) -> None:
        """ComfyUI was restarted: these are in its history no more, and its temp folder is empty, whose names it will use again."""
        self.forget_history(prompt_ids)
        self.temp_files.forget_unheld()


def _tenant_of(client_id: object) -> TenantId | None:
    """An admin's client id may hold a dot and still name no tenant."""
    try:
        return parse_tenant(owner_of(client_id) or "")
    except ValueError:
        return None

"""Which tenant owns which job, and how far it is: a cache of what ComfyUI knows, rebuilt from its queue and history at any start."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from policy.namespace import Namespace, owner_of
from policy.principal import TenantId, parse_tenant
from policy.rules.results import UNNAMED_CLIENT
from proxy.jobs.history import read_entry
from proxy.jobs.index import TenantJobs
from proxy.jobs.temp_files import Made, TempFiles, WrittenAt, end_of, unseen

MAX_LOOKED_BACK: Final = 50
MAX_ENDED_JOBS: Final = 10_000
"""What ComfyUI itself keeps in its history, of all tenants together."""


class JobState(StrEnum):
    CLAIMED = "claimed"
    """Owned, but ComfyUI has not said yet that it took it."""
    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Gone without a trace: ComfyUI was restarted, or the job was taken out of its queue."""


@dataclass(slots=True, eq=False)
class Job:
    """Times are Unix seconds; gpu_s is what ComfyUI took to run it."""

    prompt_id: str
    tenant: TenantId
    subject: str = ""
    workflow: str = ""
    client_id: str = ""
    number: float = 0.0
    state: JobState = JobState.CLAIMED
    claimed_at_s: float = 0.0
    started_at_s: float | None = None
    ended_at_s: float | None = None
    outcome: Outcome | None = None
    failing_class: str = ""
    gpu_s: float = 0.0
    temp_files: set[str] = field(default_factory=set)
    lost_files: set[str] = field(default_factory=set)
    """Temp files of its own that were deleted or written anew by others: its outputs list them for ever, and they are not its any more."""
    was_heard: bool = False
    """A socket of its client was told that it ended, and closed in order after that: the next one has nothing to catch up with."""
    over_at_s: float | None = None
    """When its client was told that it ended; ComfyUI may not have been asked yet how."""
    stopped_at_s: float | None = None
    """When the gate last asked ComfyUI to stop it, because it had run for `stopped_after_s`."""
    stopped_after_s: int | None = None
    is_deleted: bool = False
    """Its client deleted it before that."""
    sequence: int = 0
    """Its place in the order in which the registry came to know of jobs."""

    @property
    def run_id(self) -> str:
        """Names this run of this job, whoever asks: another gate and a later start of this one name it alike.

        SECURITY: a prompt_id alone may be its tenant's own choice, and come again when the job was deleted: what is counted once by it
        would be counted once for all (tests/proxy/jobs/test_admission.py).
        """
        started_ms = (
            "" if self.started_at_s is None or self.outcome is Outcome.LOST else round(self.started_at_s * 1000)
        )
        return f"{self.prompt_id}/{self.number!r}/{started_ms}"

    @property
    def is_over(self) -> bool:
        return self.over_at_s is not None

    @property
    def wrote_until_s(self) -> float:
        """Files that are newer (Unix seconds) are not its own; infinity while it runs."""
        return end_of(self.ended_at_s if self.state is JobState.ENDED else None, self.over_at_s)


class JobRegistry:
    """written_at: when a file of ComfyUI's temp folder was written, where the gate sees the folder."""

    def __init__(self, clock: Callable[[], float] = time.time, written_at: WrittenAt = unseen) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._active: dict[str, Job] = {}
        self._tenants: dict[TenantId, TenantJobs] = {}
        self._ended: dict[str, None] = {}
        self._files = TempFiles(written_at)
        self._foreign: dict[str, None] = {}
        self._retired: dict[str, TenantId] = {}
        self._sequence = 0

    def of(self, tenant: TenantId) -> TenantJobs:
        jobs = self._tenants.get(tenant)
        if jobs is None:
            jobs = self._tenants[tenant] = TenantJobs(tenant, self._files.has, self._stopped_after_s)
        return jobs

    def job(self, prompt_id: str) -> Job | None:
        return self._jobs.get(prompt_id)

    def active(self) -> list[Job]:
        """Jobs that ComfyUI has or may have in its queue."""
        return list(self._active.values())

    def working_clients(self, tenant: TenantId) -> frozenset[str]:
        """Whose jobs wait or run."""
        return frozenset(job.client_id for job in self._active.values() if job.tenant == tenant and job.client_id)

    def has_unnamed(self, tenant: TenantId) -> bool:
        """Whether an unfinished job of the tenant's came without a client id."""
        return any(job.tenant == tenant and not job.client_id for job in self._active.values())

    def last_of(self, tenant: TenantId, client_id: str) -> Job | None:
        """The job of this client that ended last, when it is among the tenant's newest."""
        newest = (self._jobs[prompt_id] for prompt_id in reversed(self.of(tenant).finished()[-MAX_LOOKED_BACK:]))
        return next((job for job in newest if job.client_id == client_id), None)

    @property
    def is_busy(self) -> bool:
        return bool(self._active)

    def claim(
        self, tenant: TenantId, wish: str | None, *, subject: str = "", workflow: str = "", client_id: str = ""
    ) -> Job:
        """Owns a job before it exists upstream. A wished id is kept when it is a canonical UUID that nobody has, or lately had.

        SECURITY: that another tenant's job is gone gives its id to nobody else: what still asks for it asks for its own (test_ledger.py).
        """
        is_free = (
            wish is not None and is_uuid(wish) and not self.knows(wish) and self._retired.get(wish, tenant) == tenant
        )
        prompt_id = wish if wish and is_free else str(uuid.uuid4())
        job = Job(prompt_id, tenant, subject, workflow, claimed_at_s=self._clock(), client_id=client_id)
        self._add(job)
        return job

    def submitted(self, prompt_id: str, number: float) -> None:
        """ComfyUI took the job."""
        job = self._jobs.get(prompt_id)
        if job is not None:
            job.number = number
            if job.state is JobState.CLAIMED:
                job.state = JobState.PENDING

    def release(self, prompt_id: str) -> None:
        """The job never came to be, or is gone from the history."""
        job = self._jobs.pop(prompt_id, None)
        if job is not None:
            self.of(job.tenant).remove(prompt_id)
            self._active.pop(prompt_id, None)
            self._ended.pop(prompt_id, None)
            self._files.release(job)
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
        self._foreign[prompt_id] = None
        while len(self._foreign) > MAX_ENDED_JOBS:
            del self._foreign[next(iter(self._foreign))]

    def knows(self, prompt_id: str) -> bool:
        """Whether it is known whose job this is, or that it is nobody's."""
        return prompt_id in self._jobs or prompt_id in self._foreign

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
                self._files.claim(job, name, made)

    def forget_temp_files(self, names: Iterable[str]) -> None:
        """These are gone, or about to go: nobody may see what ComfyUI will write under the same names."""
        self._files.forget(names)

    def old_temp_files(self, tenant: TenantId, age_s: float) -> dict[str, float]:
        """Preview files of the tenant's jobs that ended that long ago; a file newer than the time beside its name is another one."""
        return self._files.older(tenant, self._clock() - age_s)

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
            self._files.claim(job, name, made)
        if job.is_deleted:
            self._files.release(job)
        self._active.pop(job.prompt_id, None)
        self._index(job)
        self._ended[job.prompt_id] = None
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
                self._files.release(job)
                self._index(job)

    def forget_restarted(self, prompt_ids: Iterable[str]) -> None:
        """ComfyUI was restarted: these are in its history no more, and its temp folder is empty, whose names it will use again."""
        self.forget_history(prompt_ids)
        self._files.forget_unheld()

    def ended(self) -> list[str]:
        """Jobs whose end is known, oldest end first."""
        return list(self._ended)

    def _stopped_after_s(self, prompt_id: str) -> int | None:
        job = self._jobs.get(prompt_id)
        return None if job is None else job.stopped_after_s

    def _add(self, job: Job) -> None:
        self._sequence += 1
        job.sequence = self._sequence
        self._jobs[job.prompt_id] = self._active[job.prompt_id] = job
        self._index(job)

    def _index(self, job: Job) -> None:
        self.of(job.tenant).put(
            job.prompt_id,
            job.sequence,
            is_running=job.state is JobState.RUNNING,
            has_ended=job.state is JobState.ENDED or job.is_over,
            is_deleted=job.is_deleted,
        )


def _tenant_of(client_id: object) -> TenantId | None:
    """An admin's client id may hold a dot and still name no tenant."""
    try:
        return parse_tenant(owner_of(client_id) or "")
    except ValueError:
        return None


def is_uuid(text: str) -> bool:
    """The spelling ComfyUI takes: lower case, with hyphens (0.33, server.py)."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def read_history(job: Job, entry: Mapping[str, Any] | None) -> Mapping[str, Made]:
    """Takes outcome and times out of a history entry; returns the temp files that it lists."""
    told = read_entry(entry)
    if told is None:
        job.outcome = Outcome.LOST
        return {}
    started = told.started_at_s if told.started_at_s is not None else job.started_at_s
    ended = told.ended_at_s
    job.started_at_s = started
    job.ended_at_s = ended or job.ended_at_s
    job.failing_class = told.failing_class
    if started is not None and ended is not None:
        job.gpu_s = max(0.0, ended - started)
    if "execution_interrupted" in told.times:
        job.outcome = Outcome.CANCELLED if job.stopped_after_s is None else Outcome.FAILED
    else:
        job.outcome = Outcome.FAILED if told.is_error else Outcome.COMPLETED
    return told.files

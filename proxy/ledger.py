"""Which tenant owns which job, and how far it is: a cache of what ComfyUI knows, rebuilt from its queue and history at any start."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from policy.namespace import owner_of
from policy.principal import TenantId, parse_tenant
from policy.rules.results import temp_files

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
    number: float = 0.0
    state: JobState = JobState.CLAIMED
    claimed_at_s: float = 0.0
    started_at_s: float | None = None
    ended_at_s: float | None = None
    outcome: Outcome | None = None
    failing_class: str = ""
    gpu_s: float = 0.0
    temp_files: frozenset[str] = frozenset()
    is_over: bool = False
    """Its client was told that it ended; ComfyUI may not have been asked yet how."""
    is_deleted: bool = False
    """Its client deleted it before that."""


@dataclass(slots=True)
class TenantJobs:
    """One tenant's jobs, oldest first: what rules see of the ledger (policy.caller.OwnJobs)."""

    jobs: dict[str, Job] = field(default_factory=dict)

    def owns(self, prompt_id: str) -> bool:
        return prompt_id in self.jobs

    def pending(self) -> list[str]:
        return self._in(JobState.CLAIMED, JobState.PENDING)

    def running(self) -> list[str]:
        return self._in(JobState.RUNNING)

    def finished(self) -> list[str]:
        return [
            prompt_id
            for prompt_id, job in self.jobs.items()
            if (job.state is JobState.ENDED or job.is_over) and not job.is_deleted
        ]

    def has_temp_file(self, name: str) -> bool:
        return any(name in job.temp_files for job in self.jobs.values())

    def _in(self, *states: JobState) -> list[str]:
        return [prompt_id for prompt_id, job in self.jobs.items() if job.state in states and not job.is_over]


class Ledger:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._tenants: dict[TenantId, TenantJobs] = {}
        self._ended: dict[str, None] = {}
        self._temp_files: dict[str, Job] = {}
        self._foreign: dict[str, None] = {}

    def of(self, tenant: TenantId) -> TenantJobs:
        return self._tenants.setdefault(tenant, TenantJobs())

    def job(self, prompt_id: str) -> Job | None:
        return self._jobs.get(prompt_id)

    def active(self) -> list[Job]:
        """Jobs that ComfyUI has or may have in its queue."""
        return [job for job in self._jobs.values() if job.state is not JobState.ENDED]

    def claim(self, tenant: TenantId, wish: str | None, *, subject: str = "", workflow: str = "") -> Job:
        """Owns a job before it exists upstream. A wished id is kept when it is a canonical UUID that nobody has.

        Whether a neighbour has it is not told: the client just gets another id.
        """
        is_free = wish is not None and is_uuid(wish) and wish not in self._jobs and wish not in self._foreign
        prompt_id = wish if wish and is_free else str(uuid.uuid4())
        job = Job(prompt_id, tenant, subject, workflow, claimed_at_s=self._clock())
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
        """The job never came to be."""
        job = self._jobs.pop(prompt_id, None)
        if job is not None:
            self.of(job.tenant).jobs.pop(prompt_id, None)
            self._ended.pop(prompt_id, None)
            self.forget_temp_files(job.temp_files)

    def adopt(self, prompt_id: str, client_id: object, state: JobState, number: float = 0.0) -> Job | None:
        """Takes up a job found upstream when its client id names a tenant; None for one that the gate did not send."""
        known = self._jobs.get(prompt_id)
        if known is not None:
            return known
        tenant = _tenant_of(client_id)
        if tenant is None:
            return None
        job = Job(prompt_id, tenant, number=number, state=state, claimed_at_s=self._clock())
        self._add(job)
        return job

    def note_foreign(self, prompt_id: str) -> None:
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
        return True

    def mark_over(self, prompt_id: str) -> None:
        """Its client was told that it ended, and may ask for the list of what ended before the observer has."""
        job = self._jobs.get(prompt_id)
        if job is not None:
            job.is_over = True

    def add_temp_files(self, prompt_id: str, names: Iterable[str]) -> None:
        """Files that an event of the running job named: its client asks for them before the history tells."""
        job = self._jobs.get(prompt_id)
        if job is not None:
            self._own_temp_files(job, frozenset(names) - job.temp_files)

    def forget_temp_files(self, names: Iterable[str]) -> None:
        """These are gone, or about to go: nobody may see what ComfyUI will write under the same names."""
        for name in names:
            job = self._temp_files.pop(name, None)
            if job is not None:
                job.temp_files -= {name}

    def old_temp_files(self, tenant: TenantId, age_s: float) -> frozenset[str]:
        """Preview files of the tenant's jobs that ended that long ago."""
        before_s = self._clock() - age_s
        jobs = self.of(tenant).jobs.values()
        return frozenset(
            name for job in jobs if job.ended_at_s is not None and job.ended_at_s < before_s for name in job.temp_files
        )

    def end(self, job: Job, entry: Mapping[str, Any] | None, *, was_watched: bool = False) -> bool:
        """Closes a job with its history entry, None when ComfyUI has none; says whether that is news.

        was_watched: the gate was connected all the time, so that a job without an entry was deleted and not lost.
        """
        if job.state is JobState.ENDED:
            return False
        job.state = JobState.ENDED
        job.ended_at_s = self._clock()
        told = job.temp_files
        read_history(job, entry)
        if was_watched and job.outcome is Outcome.LOST and job.started_at_s is not None:
            # SECURITY: who deletes a job from the history, or makes its entry unreadable, before the gate has read it, has used the GPU
            # all the same (tests/security/test_unreadable.py).
            job.gpu_s = max(0.0, job.ended_at_s - job.started_at_s)
        self._own_temp_files(job, job.temp_files - told)
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

    def ended(self) -> list[str]:
        """Jobs whose end is known, oldest end first."""
        return list(self._ended)

    def _own_temp_files(self, job: Job, names: frozenset[str]) -> None:
        # SECURITY: ComfyUI counts up from the files that lie there, so the name of a deleted one comes back, made by anybody: who made
        # it last owns it alone (tests/matrix/test_reuse.py).
        self.forget_temp_files(names)
        self._temp_files |= dict.fromkeys(names, job)
        job.temp_files |= names

    def _add(self, job: Job) -> None:
        self._jobs[job.prompt_id] = job
        self.of(job.tenant).jobs[job.prompt_id] = job


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


def read_history(job: Job, entry: Mapping[str, Any] | None) -> None:
    """Takes outcome, times and temp files out of a history entry; trusts its shape nowhere."""
    if not isinstance(entry, dict):
        job.outcome = Outcome.LOST
        return
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, dict) else None
    times: dict[str, float] = {}
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            kind, data = message
            if isinstance(data.get("timestamp"), int | float):
                times[str(kind)] = data["timestamp"] / 1000
            if kind == "execution_error":
                job.failing_class = str(data.get("node_type", ""))[:100]
    started = times.get("execution_start", job.started_at_s)
    ended = max((at for kind, at in times.items() if kind != "execution_start"), default=None)
    job.started_at_s = started
    job.ended_at_s = ended or job.ended_at_s
    if started is not None and ended is not None:
        job.gpu_s = max(0.0, ended - started)
    job.outcome = _outcome_of(status, times)
    job.temp_files |= temp_files_of(entry.get("outputs"))


def _outcome_of(status: Any, times: Mapping[str, float]) -> Outcome:
    if "execution_interrupted" in times:
        return Outcome.CANCELLED
    if "execution_error" in times or (isinstance(status, dict) and status.get("status_str") == "error"):
        return Outcome.FAILED
    return Outcome.COMPLETED


def temp_files_of(outputs: Any) -> frozenset[str]:
    """The files in ComfyUI's temp folder that a job's outputs list, of all its nodes."""
    nodes = outputs.values() if isinstance(outputs, dict) else ()
    return frozenset(name for output in nodes for name in temp_files(output))

"""Which tenant owns which job, and how far it is: what stands in the gate's database, in memory, and what is known of it in the meantime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from policy.namespace import Namespace, owner_of
from policy.principal import TenantId, parse_tenant
from policy.prompt_ids import is_prompt_id
from policy.rules.results import UNNAMED_CLIENT
from proxy.config.comfyui import FIRST
from proxy.jobs.comfyui_names import ComfyUINames
from proxy.jobs.connections import Connections
from proxy.jobs.history import read_entry
from proxy.jobs.job import Job, JobState, Outcome
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState
from proxy.jobs.known_jobs import KnownJobs
from proxy.jobs.temp_files import Left, Made, WrittenAt, unseen

__all__ = ["Job", "JobRegistry", "JobState", "Outcome"]


MAX_RETIRED: Final = 10_000
"""Ids of jobs that are gone, or none of the gate's."""
_IDS_AT_ONCE: Final = 64
_TIME_MASK: Final = 2**48 - 1
NO_FILES: Final[Mapping[str, Made]] = MappingProxyType({})


_fresh: Final[list[str]] = []
"""Random digits for the next ids: asking the system for them lets another thread in each time."""


def _mint(now_s: float) -> str:
    """A UUID of the time (RFC 9562, 5.7), with 74 random bits: ids that come one after the other stand side by side in the database's indexes."""
    if not _fresh:
        drawn = os.urandom(10 * _IDS_AT_ONCE).hex()
        _fresh.extend(drawn[at : at + 20] for at in range(0, len(drawn), 20))
    time, digits = f"{int(now_s * 1000) & _TIME_MASK:012x}", _fresh.pop()
    return f"{time[:8]}-{time[8:]}-7{digits[:3]}-{'89ab'[int(digits[3], 16) & 3]}{digits[4:7]}-{digits[7:19]}"


class JobRegistry(KnownJobs):
    """written_at: when a file of ComfyUI's temp folder was written, where the gate sees the folder. comfyuis: their names, the first one first."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        written_at: WrittenAt = unseen,
        comfyuis: Sequence[str] = (FIRST,),
    ) -> None:
        super().__init__(written_at)
        self.comfyuis = ComfyUINames(comfyuis)
        self._clock = clock
        self._unowned: dict[str, None] = {}
        self._retired: dict[str, TenantId] = {}
        self.connections = Connections(clock)
        self.on_read_end: Callable[[Job], None] = lambda job: None
        """Called with a job of whose end this gate has read in the database: another one has seen it."""

    def claim(
        self,
        tenant: TenantId,
        wish: str | None,
        *,
        subject: str = "",
        workflow: str = "",
        client_id: str = "",
        priority: float = 0.0,
        cost_s: float = 0.0,
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
        prompt_id = wish if wish and is_free else _mint(self._clock())
        job = Job(prompt_id, tenant, subject, workflow, client_id, priority, cost_s, claimed_at_s=self._clock())
        self._add(job)
        return job

    def apply(self, row: JobRow) -> Job:
        """A job as it stands in the database."""
        job = self._jobs.get(row.prompt_id)
        had_ended = job is not None and job.state is JobState.ENDED
        if job is not None and had_ended and not row.has_ended:  # tried again
            self._drop(job)
            job, had_ended = None, False
        is_new = job is None
        if job is None:
            job = Job(row.prompt_id, TenantId(row.tenant), sequence=row.sequence)
        row = self.comfyuis.at_known(row)
        if job.comfyui != row.comfyui and job.temp_files:
            self.temp_files.move(job, self._clock())
        take_row(job, row)
        if is_new:
            self._add(job)
        if job.state is JobState.ENDED:
            self._close(job)
            if not had_ended:
                self.on_read_end(job)
        else:
            self._active[job.prompt_id] = job
            self._index(job)
        return job

    def sent(self, job: Job) -> None:
        """ComfyUI is being given it."""
        job.state = JobState.SENT
        job.sent_in, job.sent_at_s, job.is_in_flight = self.connections.to(job.comfyui), self._clock(), True
        self._index(job)

    def dispatched(self, prompt_id: str) -> None:
        """ComfyUI has it in its queue. Unknown ids are ignored."""
        job = self._jobs.get(prompt_id)
        if job is not None and job.state in (JobState.CLAIMED, JobState.SENT, JobState.WAITING):
            job.state = JobState.DISPATCHED
            job.seen_in, job.is_in_flight = self.connections.to(job.comfyui), False
            self._index(job)

    def release(self, prompt_id: str) -> None:
        """The job never came to be, or is gone from the history: its id is nobody else's for a while. Unknown ids are ignored."""
        job = self.job(prompt_id)
        if job is not None:
            self._drop(job)
            self.comfyuis.forget(prompt_id)
            self.temp_files.release(job)
            if job.closed is not None:
                job.closed.set()
            self._retired[prompt_id] = job.tenant
            while len(self._retired) > MAX_RETIRED:
                del self._retired[next(iter(self._retired))]

    def mark_unowned(self, prompt_id: str) -> None:
        """ComfyUI has a job that no tenant sent. SECURITY: a tenant that claimed its id would see it (tests/matrix/test_reuse.py)."""
        self._unowned[prompt_id] = None
        while len(self._unowned) > MAX_RETIRED:
            del self._unowned[next(iter(self._unowned))]

    def knows(self, prompt_id: str) -> bool:
        """Whether it is known whose job this is, or that it is nobody's."""
        return prompt_id in self._jobs or prompt_id in self._unowned

    def start(self, job: Job, at_s: float | None = None) -> bool:
        """Marks a job as running; says whether that is news."""
        if job.state in (JobState.RUNNING, JobState.ENDED):
            return False
        job.state = JobState.RUNNING
        job.seen_in = self.connections.to(job.comfyui)
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

    def old_temp_files(self, tenant: TenantId, age_s: float) -> list[tuple[str, Left]]:
        """Preview files of the tenant's jobs that ended that long ago."""
        return self.temp_files.older(tenant, self._clock() - age_s)

    def end(self, job: Job, files: Mapping[str, Made] = NO_FILES) -> bool:
        """Closes a job whose outcome and times are known (take_told), or which is lost; says whether that is news. files: that its history entry lists."""
        if job.state is JobState.ENDED:
            return False
        job.state = JobState.ENDED
        job.outcome = job.outcome or Outcome.LOST
        if job.ended_at_s is None:
            job.ended_at_s = self._clock()
        for name, made in files.items():
            self.temp_files.claim(job, name, made)
        if job.is_deleted:
            self.temp_files.release(job)
        self._close(job)
        if job.closed is not None:
            job.closed.set()
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

    def forget_restarted(self, comfyui: str, prompt_ids: Iterable[str]) -> None:
        """A ComfyUI was restarted since these ended there: its temp folder is empty, and it will use the names again."""
        for prompt_id in prompt_ids:
            if (job := self._jobs.get(prompt_id)) is not None:
                self.temp_files.release(job)
        self.temp_files.forget_unheld(lambda name: (name or self.comfyuis[0]) == comfyui)


def ended_at(registry: JobRegistry, comfyui: str) -> list[str]:
    """Jobs that ended at this ComfyUI, oldest end first."""
    jobs = ((prompt_id, registry.job(prompt_id)) for prompt_id in registry.ended())
    return [prompt_id for prompt_id, job in jobs if job and (job.comfyui or registry.comfyuis[0]) == comfyui]


def change_comfyuis(registry: JobRegistry, names: Sequence[str]) -> None:
    """Others have come or gone; the first stays.

    SECURITY: what was in the temp folder of one that has gone is nobody's: the first may have other files of these names
    (tests/proxy/jobs/test_comfyui_names.py).
    """
    gone, there = set(registry.comfyuis) - set(names), list[Job]()
    if gone:  # there may be very many jobs
        ended = (registry.job(prompt_id) for prompt_id in registry.ended())
        there = [job for job in (*registry.active(), *ended) if job is not None and job.comfyui in gone]
    for name in gone:
        registry.forget_restarted(name, [job.prompt_id for job in there if job.comfyui == name])
    registry.comfyuis.change(names, there, registry.job)


def owner_of_client(client_id: object) -> tuple[TenantId, str] | None:
    """Whose job is one that was found upstream, and which client's; None for one that the gate did not send."""
    tenant = _tenant_of(client_id)
    if tenant is None:
        return None
    own_id = Namespace(tenant).client_id_to_client(client_id) or ""
    return tenant, "" if own_id == UNNAMED_CLIENT else own_id


def claim_listed_files(registry: JobRegistry, job: Job, entry: Any) -> None:
    """ComfyUI, which has not been restarted since, still lists the temp files of a job that has ended."""
    told = read_entry(entry)
    for name, made in (told.files if told is not None else {}).items():
        registry.temp_files.claim(job, name, made)


def _tenant_of(client_id: object) -> TenantId | None:
    """An admin's client id may hold a dot and still name no tenant."""
    try:
        return parse_tenant(owner_of(client_id) or "")
    except ValueError:
        return None


_STATES: Final[Mapping[str, tuple[JobState, Outcome | None]]] = {
    StoredState.WAITING: (JobState.WAITING, None),
    StoredState.DISPATCHED: (JobState.DISPATCHED, None),
    StoredState.RUNNING: (JobState.RUNNING, None),
    StoredState.SUCCEEDED: (JobState.ENDED, Outcome.COMPLETED),
    StoredState.FAILED: (JobState.ENDED, Outcome.FAILED),
    StoredState.CANCELED: (JobState.ENDED, Outcome.CANCELLED),
}


def take_row(job: Job, row: JobRow) -> None:
    """What the database has of it."""
    job.state, job.outcome = _STATES[row.state]
    job.subject, job.workflow, job.client_id = row.subject, row.workflow, row.client_id
    job.priority, job.cost_s, job.span, job.number = -row.rank, row.cost_s, row.span, row.number
    job.sequence, job.gate, job.attempts = row.sequence, row.gate, tuple(row.told_attempts())
    if job.comfyui != row.comfyui:  # another one has not seen it yet
        job.comfyui, job.seen_in = row.comfyui, -1
    job.claimed_at_s, job.started_at_s, job.ended_at_s = row.created_at_s, row.started_at_s, row.ended_at_s
    job.gpu_s, job.error, job.failing_class = row.gpu_s, row.error, row.failing_class
    job.stopped_after_s, job.version = row.stopped_after_s, row.version
    job.is_unwanted = row.wish == CANCEL


def row_of(job: Job, *, comfyui: str, gate: str, lease_until_s: float, attempts: str) -> JobRow:
    """A job that is to be recorded."""
    return JobRow(
        prompt_id=job.prompt_id,
        tenant=job.tenant,
        subject=job.subject,
        client_id=job.client_id,
        workflow=job.workflow,
        rank=-job.priority,
        cost_s=job.cost_s,
        number=job.number,
        created_at_s=job.claimed_at_s,
        comfyui=comfyui,
        gate=gate,
        lease_until_s=lease_until_s,
        attempts=attempts,
    )

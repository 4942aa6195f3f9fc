"""What happens to jobs, and who is told of it. Subscribers are wired once, in app.py."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from policy.rules.events import Event
from proxy.jobs.history import is_memory_error
from proxy.jobs.job import GIVEN
from proxy.jobs.registry import Job, JobRegistry, JobState
from proxy.jobs.temp_files import Made

Subscriber = Callable[[Job], None]
_TURNS: Final = frozenset({"execution_start", "execution_error"})
"""Kinds of events from which on a job is withheld, or no longer."""


class JobEvent:
    """Calls its subscribers in the order in which they came; called like a function itself."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, *subscribers: Subscriber) -> None:
        self._subscribers += subscribers

    def __call__(self, job: Job) -> None:
        for subscriber in self._subscribers:
            subscriber(job)


@dataclass(frozen=True, slots=True)
class JobEvents:
    """queued: it is on disk, and its client is told. started: it runs. ended: however it ended, once per job that came to ComfyUI. canceled: it had not."""

    queued: JobEvent = field(default_factory=JobEvent)
    started: JobEvent = field(default_factory=JobEvent)
    ended: JobEvent = field(default_factory=JobEvent)
    canceled: JobEvent = field(default_factory=JobEvent)


class RunningJobs(Protocol):
    """A tenant's jobs that run at one ComfyUI."""

    def running(self) -> Sequence[str]: ...


class Listener(Protocol):
    """Hears what tenants' sockets are sent. jobs: of the tenant whose event it is, at the ComfyUI that sent it."""

    def heard(self, event: Event, job: Job | None, jobs: RunningJobs) -> None:
        """job: which the event names, None where it names none that is known."""

    def pictured(self, frame: bytes | memoryview, jobs: RunningJobs) -> None:
        """A binary event."""


class _Nobody:
    def heard(self, event: Event, job: Job | None, jobs: RunningJobs) -> None:
        return

    def pictured(self, frame: bytes | memoryview, jobs: RunningJobs) -> None:
        return


@dataclass(frozen=True, slots=True)
class _JobsAt:
    """Of a tenant's jobs those at one of several ComfyUIs. comfyui: "" for the first, which has those that are at none of the others. reports: know which
    there are, of which some may come and go."""

    jobs: RunningJobs
    registry: JobRegistry
    comfyui: str
    reports: SocketReports

    def running(self) -> Sequence[str]:
        running = self.jobs.running()
        return [each for each in running if self._is_here(each)] if self.reports.others else running

    def _is_here(self, prompt_id: str) -> bool:
        job = self.registry.job(prompt_id)
        return _is_at("" if job is None else job.comfyui, self.comfyui, self.reports.others)


def _is_at(comfyui: str, place: str, others: Collection[str]) -> bool:
    """Of the name of a ComfyUI, which may be "" for the first. place: "" for the first. others: all but the first."""
    return comfyui == place if place else comfyui not in others


class SocketReports:
    """What tenants' sockets hear of jobs before the queue watcher has asked: the registry is brought up to date.

    close_soon: called with the id of a job whose client was told that it ended. listener: told of everything that was judged to be a tenant's.
    """

    listener: Listener = _Nobody()
    others: Collection[str] = ()
    """The names of other ComfyUIs than the first."""

    def __init__(self, registry: JobRegistry, events: JobEvents, close_soon: Callable[[str], None]) -> None:
        self._registry = registry
        self._events = events
        self._close_soon = close_soon
        self.job: Callable[[str], Job | None] = registry.job
        """Finds the job of an id."""

    def running(self, jobs: RunningJobs, comfyui: str) -> RunningJobs:
        """Those of a tenant's jobs that run there. comfyui: "" for the first."""
        return _JobsAt(jobs, self._registry, comfyui, self)

    def is_kept_back(self, job: Job, event: Event, comfyui: str) -> bool:
        """Whether the client is not told. comfyui: which says it, "" for the first.

        Another ComfyUI has the job by now, and this one was away and has not been told; or it is going to be tried once more, because the GPU's memory did
        not suffice.
        """
        if self.others and job.state in GIVEN and not _is_at(job.comfyui, comfyui, self.others):
            return True
        if event.kind in _TURNS:
            self._turn(job, event)
        return job.is_withheld

    def _turn(self, job: Job, event: Event) -> None:
        if event.kind == "execution_start":
            job.is_withheld = False
        elif is_memory_error(event.data) and not job.was_out_of_memory:
            job.is_withheld = True
            self._close_soon(job.prompt_id)

    def started(self, prompt_id: str) -> None:
        job = self._registry.job(prompt_id)
        if job is not None and self._registry.start(job):
            self._events.started(job)

    def ended(self, prompt_id: str) -> None:
        """How it ended is read at once."""
        self._registry.mark_over(prompt_id)
        self._close_soon(prompt_id)

    def is_at(self, prompt_id: str, nodes: frozenset[str]) -> None:
        """The job runs these nodes now."""
        job = self._registry.job(prompt_id)
        if job is not None and not job.is_over and job.state is not JobState.ENDED:
            self._registry.of(job.tenant).is_at(prompt_id, nodes)

    def made_temp_files(self, prompt_id: str, names: list[str], made: Made, comfyui: str) -> None:
        """comfyui: which has made them, "" for the first.

        SECURITY: elsewhere a file of such a name is somebody else's (tests/proxy/websocket/test_session_sockets.py).
        """
        job = self._registry.job(prompt_id)
        if job is not None and _is_at(job.comfyui, comfyui, self.others):
            self._registry.add_temp_files(prompt_id, names, made)

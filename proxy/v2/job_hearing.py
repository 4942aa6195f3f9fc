"""What ComfyUI says of jobs, as it was judged to be a tenant's (proxy/websocket/upstream_events.py): how far they are, and what they have made."""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson

from policy.rules.events import PROGRESS, Event
from policy.rules.results import SDK_CLIENT
from policy.v2.outputs import find_shown
from proxy.jobs.events import RunningJobs
from proxy.jobs.history import cached_nodes
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.v2 import followed_job
from proxy.v2.followed_job import FollowedJob
from proxy.v2.followed_jobs import FollowedJobs
from proxy.v2.off_loop import off_loop
from proxy.v2.outputs import JobOutputs
from proxy.websocket.send_queue import LARGEST_PREVIEW_BYTES

_log = logging.getLogger("comfygate")


class JobHearing:
    """A proxy.jobs.events.Listener. Of jobs that nobody watches it keeps the newest that says how far they are, unread."""

    def __init__(self, registry: JobRegistry, followed: FollowedJobs, outputs: JobOutputs) -> None:
        self._registry = registry
        self._followed = followed
        self._outputs = outputs
        self._tasks = Tasks()
        self.tell_others: Callable[[str, Event], None] = lambda prompt_id, event: None
        """Called with what is heard of jobs of Comfy API v2: other gates may have clients that follow them."""

    async def stop(self) -> None:
        await self._tasks.stop()

    def heard(self, event: Event, job: Job | None, jobs: RunningJobs) -> None:
        if job is None and event.prompt_id is None and event.kind == "executing":
            # To a socket that was opened meanwhile it does not say of which job it speaks.
            job = self._only_one(jobs)
        if job is not None:
            if job.client_id == SDK_CLIENT:
                self.tell_others(job.prompt_id, event)
            self._take(job, event)

    def take(self, prompt_id: str, event: Event) -> None:
        """Of this job; another gate has heard it."""
        job = self._registry.job(prompt_id)
        if job is not None:
            self._take(job, event)

    def _take(self, job: Job, event: Event) -> None:
        kind = event.kind
        followed = self._followed.get(job.tenant, job.prompt_id)
        if followed is None:
            if job.state is JobState.ENDED:
                return
            followed = self._followed.ensure(job.tenant, job.prompt_id)
        followed.is_heard = True
        if kind in PROGRESS:
            followed.tracker.keep(kind, event.text)
        elif kind == "execution_start":
            followed.begin()
        elif kind == "execution_cached":
            followed.tracker.cached(cached_nodes(event.data))
        elif kind == "executing":
            followed.tracker.executing(event.data.get("node"), event.data.get("display_node"))
        elif kind == "executed":
            self._executed(followed, event)
        followed.audience.changed(followed_job.PROGRESS)

    def has_heard(self, job: Job) -> bool:
        """Whether anything was heard of it, here or elsewhere."""
        followed = self._followed.get(job.tenant, job.prompt_id)
        return followed is not None and followed.is_heard

    def pictured(self, frame: bytes | memoryview, jobs: RunningJobs) -> None:
        """A ComfyUI runs one job at a time, so a picture is of the tenant's only one that runs there."""
        if not self._followed.has_watched or len(frame) > LARGEST_PREVIEW_BYTES:
            return
        job = self._only_one(jobs)
        followed = None if job is None else self._followed.get(job.tenant, job.prompt_id)
        if followed is not None and self._followed.is_watched(followed):
            followed.picture(bytes(frame))

    def _only_one(self, jobs: RunningJobs) -> Job | None:
        running = jobs.running()
        return self._registry.job(running[0]) if len(running) == 1 else None

    def _executed(self, followed: FollowedJob, event: Event) -> None:
        node_id = event.data.get("node")
        if isinstance(node_id, str):
            followed.tracker.executed(node_id)
            is_shown = bool(event.data.get("output")) and self._followed.is_watched(followed)
            if is_shown and followed.show(event.text):
                self._tasks.start(self._measure(followed), "results of a node")

    async def _measure(self, followed: FollowedJob) -> None:
        """One after the other, so that they are told in their order."""
        while followed.unmeasured:
            frame = followed.unmeasured[0]
            data = (await off_loop(orjson.loads, frame, size=len(frame)))["data"]
            shown = find_shown(data["node"], data.get("output"))
            try:
                made = await self._outputs.measure_shown(followed.tenant, followed.prompt_id, shown)
            except DatabaseUnavailable as error:
                _log.warning("what job %s has made is not known until it ends: %s", followed.prompt_id, error)
                made = []
            if (job := self._followed.job(followed)) is not None:
                followed.tell_outputs(made, self._followed.expires_at_s(job))
            followed.shown()

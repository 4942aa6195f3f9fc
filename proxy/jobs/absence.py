"""A ComfyUI among several that was away: for how long, and what it still has when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.closing import JobClosing
from proxy.jobs.job import COMFYUI_GONE, Job, JobState
from proxy.jobs.queue_reader import Queue
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream

_LIMIT_S: Final = 10.0

_log = logging.getLogger("comfygate")


class Absence:
    """gone_after_s: None where there is no other ComfyUI, so that whoever is away is waited for; changes when others come or go."""

    def __init__(self, gone_after_s: float | None) -> None:
        self.gone_after_s = gone_after_s
        self._since_s: float | None = None
        self.is_given_up = False
        """The others go on with what it had, and with what it may have had."""

    @property
    def is_possible(self) -> bool:
        return self.gone_after_s is not None

    def title(self, comfyui: str) -> str:
        """What the operator's log calls it."""
        return f"ComfyUI {comfyui}" if self.is_possible else "ComfyUI"

    def setting(self, comfyui: str) -> str:
        """Where the configuration says at which address it is."""
        return f"the url of {comfyui}" if self.is_possible else "upstream.url"

    def began(self) -> None:
        """It is not there; nothing new where that is known."""
        if self._since_s is None:
            self._since_s = time.monotonic()

    def ended(self) -> None:
        self._since_s = None
        self.is_given_up = False

    async def give_up(self, comfyui: str, closing: JobClosing) -> None:
        """Where it has lasted too long, what the ComfyUI had goes on with the others."""
        if self.gone_after_s is None or self._since_s is None or time.monotonic() - self._since_s < self.gone_after_s:
            return
        await self._give_up(comfyui, closing, has_stood=False)

    async def stands_still(self, comfyui: str, closing: JobClosing) -> None:
        """It answers, and begins nothing of what it has: the others go on with that, and it is taken out of the queue at the next look."""
        await self._give_up(comfyui, closing, has_stood=True)

    async def _give_up(self, comfyui: str, closing: JobClosing, *, has_stood: bool) -> None:
        try:
            await closing.give_up(has_stood=has_stood)
            self.is_given_up = not has_stood
        except DatabaseUnavailable as error:
            _log.error(
                "the jobs of %s, with which others are to go on, wait until the database can be used again: %s",
                comfyui,
                error,
            )


class Strays:
    """Jobs that a ComfyUI has in its queue although others go on with them: it was away, and has not been restarted."""

    def __init__(
        self, upstream: Upstream, registry: JobRegistry, comfyui: str, current: Callable[[], Awaitable[None]]
    ) -> None:
        """current: what other gates have written of jobs is known after it."""
        self._current = current
        self._upstream = upstream
        self._registry = registry
        self._comfyui = comfyui

    async def take_out(self, queue: Queue) -> Queue:
        """The queue without them. One that runs is stopped: it would write files that nobody asked for, and take the time of those that come."""
        strays = self._find(queue)
        if strays:
            await self._current()  # another gate may have given it there just now
            strays &= self._find(queue)
        for prompt_id in strays:
            await self._take_out(prompt_id)
        return queue._replace(running=queue.running - strays, pending=queue.pending - strays)

    def _find(self, queue: Queue) -> set[str]:
        """What is only tried is taken out by who tries it, and may be given here by then."""
        jobs = (self._registry.job(prompt_id) for prompt_id in queue.given)
        return {job.prompt_id for job in jobs if job is not None and self._is_stray(job)}

    def _is_stray(self, job: Job) -> bool:
        """Its client may have been told, too, that it failed with the ComfyUI that went away."""
        if job.state is JobState.ENDED and job.error == COMFYUI_GONE:
            return True
        return job.state is JobState.WAITING or (job.state is not JobState.CLAIMED and job.comfyui != self._comfyui)

    async def _take_out(self, prompt_id: str) -> None:
        _log.warning(
            "%s still has job %s, with which another ComfyUI goes on: it is stopped there", self._comfyui, prompt_id
        )
        calls = (
            json_call("POST", ("queue",), {"delete": [prompt_id]}),
            json_call("POST", ("interrupt",), {"prompt_id": prompt_id}),
        )
        try:
            for call in calls:
                await self._upstream.ask(call, time_limit_s=_LIMIT_S)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            _log.warning("%s does not stop it (%s)", self._comfyui, error)  # the next time

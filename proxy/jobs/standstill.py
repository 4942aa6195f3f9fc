"""Whether a ComfyUI answers and runs nothing: its worker thread is dead, or hangs, while its HTTP lives. Mostly only a restart of ComfyUI helps."""

from __future__ import annotations

import time
from typing import Final

from proxy.jobs.probe import Probe
from proxy.jobs.queue_reader import Queue
from proxy.jobs.registry import JobRegistry
from proxy.upstream.client import Upstream

STUCK_AFTER_S: Final = 60.0
UNSTOPPED_AFTER_S: Final = 300.0
"""ComfyUI looks between two nodes, and two steps of a sampler, whether it is to stop: what takes longer hangs."""


class Standstill:
    """Of one ComfyUI, as its queue shows it."""

    def __init__(self, upstream: Upstream, registry: JobRegistry) -> None:
        self._registry = registry
        self._probe = Probe(upstream, registry)
        self._waiting_since_s: float | None = None
        self._unstopped: dict[str, float] = {}
        """Jobs that run although they were told to stop, by id: since when."""

    @property
    def is_on(self) -> bool:
        """Jobs have waited, and none has run, for long; or one runs on that was told to stop long ago."""
        since_s, now_s = self._waiting_since_s, time.monotonic()
        if since_s is not None and now_s - since_s > STUCK_AFTER_S:
            return True
        return any(now_s - told_s > UNSTOPPED_AFTER_S for told_s in self._unstopped.values())

    def look(self, queue: Queue, *, is_one_of_several: bool) -> None:
        """queue: as it is now. is_one_of_several: others can go on; else it stays with who has the jobs, and one that does not stop is nobody's fault."""
        now_s = time.monotonic()
        self._waiting_since_s = (self._waiting_since_s or now_s) if queue.pending and not queue.running else None
        jobs = [self._registry.job(prompt_id) for prompt_id in queue.running] if is_one_of_several else []
        told = [
            job.prompt_id for job in jobs if job is not None and (job.is_unwanted or job.stopped_after_s is not None)
        ]
        self._unstopped = {prompt_id: self._unstopped.get(prompt_id, now_s) for prompt_id in told}

    async def mark(self, comfyui: str, queue: Queue) -> None:
        """Before what waits there goes on elsewhere: that it runs again is seen."""
        if not queue.running:
            await self._probe.put(comfyui, queue.pending)

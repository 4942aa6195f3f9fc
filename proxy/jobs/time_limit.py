"""Stops jobs that run longer than their tenant's `job_seconds`: a node that waits for a click that never comes would hold everybody's queue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import Job, JobRegistry, JobState
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream

LOOK_EACH_S: Final = 1.0
ASK_AGAIN_S: Final = 10.0
"""A node that does not look whether it is interrupted is asked again."""
_LIMIT_S: Final = 10.0

_log = logging.getLogger("comfygate")


class JobTimes:
    """limit_s: how long one job of a tenant may run, None for as long as it likes."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        limit_s: Callable[[TenantId], int | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._limit_s = limit_s
        self._clock = clock

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EACH_S)

    async def look(self) -> None:
        """Interrupts each job that has run for too long."""
        for job in self._registry.active():
            limit_s = self._limit_s(job.tenant)
            if (
                limit_s is None
                or job.gate != self._records.gate
                or job.state is not JobState.RUNNING
                or job.started_at_s is None
                or job.is_over
            ):
                continue
            over_s = self._clock() - job.started_at_s - limit_s
            is_asked = job.stopped_at_s is not None and self._clock() - job.stopped_at_s < ASK_AGAIN_S
            if over_s >= 0 and not is_asked:
                await self._stop(job, limit_s)

    async def _stop(self, job: Job, limit_s: int) -> None:
        if job.stopped_at_s is None:
            _log.warning("job %s of tenant %s has run for %d s: it is stopped", job.prompt_id, job.tenant, limit_s)
        # Before it is asked: its end may come before the answer.
        job.stopped_at_s, job.stopped_after_s = self._clock(), limit_s
        try:
            await self._records.stop_after(job, limit_s)
            await self._upstream.ask(
                json_call("POST", ("interrupt",), {"prompt_id": job.prompt_id}, (job.prompt_id,)), time_limit_s=_LIMIT_S
            )
        except DatabaseUnavailable as error:
            _log.warning("job %s cannot be stopped before that is recorded: %s", job.prompt_id, error)
        except (UpstreamTimeout, UpstreamUnavailable) as error:
            _log.warning("ComfyUI does not take the interrupt of job %s (%s)", job.prompt_id, error)

"""Gives ComfyUI its next jobs: as many as its window has room for, in the fair order, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from policy.call import UpstreamCall, UpstreamReply
from policy.rules.jobs import JSON_TYPE
from policy.rules.prompt import PROMPT, body_for
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import Given
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream

SUBMIT_LIMIT_S: Final = 60.0
LOOK_EACH_S: Final = 1.0
"""Something is announced whenever there may be room; this is for what was not."""
_TRY_AGAIN_S: Final = 1.0

_log = logging.getLogger("comfygate")

Refused = Callable[[Job, UpstreamReply], Awaitable[None]]
Prepare = Callable[[Job], Awaitable[None]]


async def _unprepared(job: Job) -> None:
    return


class Dispatcher:
    """is_ready: whether ComfyUI is there, and the registry is as its queue is. on_refused: called with a job that ComfyUI does not take any more.
    prepare: called with each before ComfyUI is sent it."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        replica: JobReplica,
        is_ready: Callable[[], bool],
        on_refused: Refused,
        prepare: Prepare = _unprepared,
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._replica = replica
        self._is_ready = is_ready
        self._on_refused = on_refused
        self._prepare = prepare
        self._is_wanted = asyncio.Event()

    def wake(self) -> None:
        """There may be room, or somebody who waits. Who knows of both at once does not ask the database."""
        tally = self._registry.tally
        if tally.waiting and len(tally.given) < self._records.window():
            self._is_wanted.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EACH_S):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass
            self._is_wanted.clear()
            try:
                await self.dispatch()
            except DatabaseUnavailable as error:
                _log.warning("jobs wait until the database can be used again: %s", error)
                await asyncio.sleep(_TRY_AGAIN_S)

    async def dispatch(self) -> None:
        """Raises DatabaseUnavailable."""
        if self._records.is_uncertain:
            await self._replica.recover()
        if not self._is_ready() or not self._registry.tally.waiting:
            return
        batch = await self._records.give()
        for index, given in enumerate(batch):
            if not await self._send(given):
                for later in reversed(batch[index + 1 :]):  # they stay behind it
                    await self._give_back(later, "comfyui-unreachable")
                await asyncio.sleep(_TRY_AGAIN_S)
                return

    async def _give_back(self, given: Given, reason: str) -> None:
        job = self._registry.job(given.job.prompt_id)
        if job is not None and job.state is JobState.SENT:
            await self._records.give_back(job, reason)

    async def _send(self, given: Given) -> bool:
        """False where ComfyUI cannot take jobs at the moment."""
        job = self._registry.job(given.job.prompt_id)
        if job is None or job.state is not JobState.SENT:  # gone meanwhile
            return True
        await self._prepare(job)
        body = body_for(given.submitted.body, job.prompt_id, job.number)
        call = UpstreamCall("POST", PROMPT, body=body, content_type=JSON_TYPE)
        sent_s = time.monotonic()
        try:
            reply = await self._upstream.ask(call, time_limit_s=SUBMIT_LIMIT_S)
        except UpstreamUnreachable:
            await self._records.give_back(job, "comfyui-unreachable")
            return False
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            # It may be there, or come yet: the queue watcher finds out, and until then it is nowhere else.
            _log.warning(
                "ComfyUI did not say whether it took job %s (%s, %.1f s)",
                job.prompt_id,
                error,
                time.monotonic() - sent_s,
            )
            return False
        finally:
            job.is_in_flight = False
        if reply.status == 200:
            self._registry.dispatched(job.prompt_id)
            return True
        if reply.status >= 500:
            await self._records.give_back(job, "comfyui-not-ready")
            return False
        await self._on_refused(job, reply)
        return True

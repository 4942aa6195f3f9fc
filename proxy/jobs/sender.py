"""Sends one ComfyUI the jobs that it was given, one after the other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final

from policy.call import UpstreamCall, UpstreamReply
from policy.rules.dispatch import body_at
from policy.rules.jobs import JSON_TYPE
from policy.rules.prompt import PROMPT, body_for
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from proxy.jobs.aside import Aside
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import Given, StoredState
from proxy.jobs.model_memory import ModelMemory
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_upkeep import NOT_SENT
from proxy.limits.heavy_work import WORK_BYTES
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream

SUBMIT_LIMIT_S: Final = 60.0
TRY_AGAIN_S: Final = 1.0

_log = logging.getLogger("comfygate")

Refused = Callable[[Job, UpstreamReply], Awaitable[None]]
Prepare = Callable[[Job, Given], Awaitable[UpstreamReply | None]]


async def _unprepared(job: Job, given: Given) -> UpstreamReply | None:
    return None


class _Unwanted(Exception):
    """Somebody has canceled the job, which ComfyUI has not got yet."""


class Sender:
    """comfyui: its name. on_refused: called with a job that ComfyUI does not take any more. prepare: called with each before ComfyUI is sent it
    (proxy/jobs/preparation.py). is_far: whether that may take long, since files are to be brought: then other tenants' jobs need not wait for it."""

    def __init__(
        self,
        comfyui: str,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        is_ready: Callable[[], bool],
        on_refused: Refused,
        prepare: Prepare = _unprepared,
        is_far: Callable[[Given], bool] = lambda given: False,
        on_brought: Callable[[], None] = lambda: None,
    ) -> None:
        """is_ready: whether ComfyUI is there, and the registry is as its queue is. on_brought: called when a tenant has no files brought any more."""
        self.comfyui = comfyui
        self._folder = "" if comfyui == registry.comfyuis[0] else comfyui
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._is_ready = is_ready
        self._on_refused = on_refused
        self._prepare = prepare
        self._memory = ModelMemory(comfyui, upstream, registry)
        self._aside = Aside(is_far, self._send, self._give_back_all, self._forget_unsent, on_brought)
        self._turn = asyncio.Lock()
        self._is_sending = False
        self.is_leaving = False
        """The configuration does not have its ComfyUI any more: it is given nothing, also of what was chosen for it already."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be given jobs now."""
        return not self._is_sending and not self.is_leaving and self._is_ready()

    @property
    def is_sending(self) -> bool:
        return self._is_sending

    @property
    def brings_for(self) -> frozenset[str]:
        """Tenants for whose jobs files are brought to it."""
        return self._aside.tenants

    def begin(self) -> None:
        """It is about to be sent some: until they are, it is given no more, so that they stay in their order."""
        self._is_sending = True

    async def stop(self) -> None:
        await self._aside.stop()

    async def send_all(self, batch: Sequence[Given]) -> None:
        """In their order. Where ComfyUI does not take one at the moment, those behind it wait again too. Raises DatabaseUnavailable."""
        self.begin()
        try:
            batch = [given for given in batch if not self._aside.take(given)]
            for index, given in enumerate(batch):
                if not await self._send(given):
                    await self._give_back_all(batch[index + 1 :])
                    await asyncio.sleep(TRY_AGAIN_S)
                    return
        except Exception:
            self._forget_unsent(batch)
            raise
        finally:
            self._is_sending = False

    def _forget_unsent(self, batch: Iterable[Given]) -> None:
        """Nobody would see that ComfyUI has not got these: they are in flight for ever, as far as anybody knows."""
        for given in batch:
            job = self._registry.job(given.job.prompt_id)
            if job is not None and job.is_in_flight:
                self._forget(job, given)
        self._records.is_uncertain = True

    def _forget(self, job: Job, given: Given) -> None:
        """It waits, though the database still says that ComfyUI was given it (JobReplica.recover)."""
        if job.state is JobState.SENT:
            self._registry.apply(given.job._replace(state=StoredState.WAITING)).is_in_flight = False

    async def _give_back_all(self, batch: Sequence[Given]) -> None:
        """Those behind one that was not taken: they stay behind it."""
        for given in reversed(batch):
            job = self._registry.job(given.job.prompt_id)
            if job is not None and job.state is JobState.SENT:
                await self._return(job, given, "comfyui-unreachable")

    async def _return(self, job: Job, given: Given, reason: str) -> None:
        """It waits again: ComfyUI has not got it. Raises DatabaseUnavailable; it is given back when the database can be used again."""
        try:
            await self._records.give_back(job, reason)
        except DatabaseUnavailable:
            self._forget(job, given)
            raise

    async def _send(self, given: Given) -> bool:
        """False where ComfyUI cannot take jobs at the moment."""
        job = self._registry.job(given.job.prompt_id)
        if job is None or job.state is not JobState.SENT:  # gone meanwhile
            return True
        sent_s = time.monotonic()
        try:
            reply = await self._hand_over(job, given)
        except UpstreamUnreachable:
            await self._return(job, given, "comfyui-unreachable")
            return False
        except _Unwanted:
            await self._return(job, given, NOT_SENT)
            return True
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
            await self._return(job, given, "comfyui-not-ready")
            return False
        await self._on_refused(job, reply)
        return True

    def _check(self, job: Job) -> None:
        """Raises UpstreamUnreachable, _Unwanted."""
        if self.is_leaving:
            raise UpstreamUnreachable
        if job.is_unwanted:
            raise _Unwanted

    async def _hand_over(self, job: Job, given: Given) -> UpstreamReply:
        """ComfyUI's answer. Raises UpstreamUnreachable where it was not sent, UpstreamUnavailable or UpstreamTimeout where it may have been."""
        self._check(job)
        try:
            refusal = await self._prepare(job, given)
        except (UpstreamUnavailable, UpstreamTimeout) as error:
            raise UpstreamUnreachable from error
        self._check(job)  # large files may have been brought meanwhile
        if refusal is not None:
            return refusal
        body = given.submitted.body
        if given.needs is not None:
            work = partial(body_at, body, given.needs, self._folder)
            body = await asyncio.to_thread(work) if len(body) > WORK_BYTES else work()
        call = UpstreamCall("POST", PROMPT, body=body_for(body, job.prompt_id, job.number), content_type=JSON_TYPE)
        async with self._turn:
            if given.changes_models:
                await self._memory.make_room()
            return await self._upstream.ask(call, time_limit_s=SUBMIT_LIMIT_S)

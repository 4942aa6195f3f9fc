"""What tenants do with jobs that are on disk: read them, cancel what waits, delete what has ended."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from policy.call import DocumentsRead
from policy.documents import Kind
from policy.principal import TenantId
from policy.rules.jobs import json_call
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.admission import JobAdmission
from proxy.jobs.job import GIVEN, Job, JobState
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream

_log = logging.getLogger("comfygate")

CLOSING_LIMIT_S: Final = 10.0
"""How long a reader waits for the end of a job that its client has heard of already."""
_DELETE_LIMIT_S: Final = 30.0
_CANCEL_AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""The last again and again: as many jobs as ComfyUI's window has may be asked for so."""


class JobResults:
    """close_soon: called for a job that is over, so that its end is read at once. on_canceled: called for each job that waited and does no more."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        records: JobRecords,
        documents: JobDocuments,
        admission: JobAdmission,
        close_soon: Callable[[str], None],
        on_canceled: Callable[[Job], None],
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._records = records
        self._documents = documents
        self._admission = admission
        self._close_soon = close_soon
        self._on_canceled = on_canceled
        self._tasks = Tasks()
        self._canceling: set[str] = set()

    async def stop(self) -> None:
        await self._tasks.stop()

    async def read(self, tenant: TenantId, kind: Kind, prompt_ids: tuple[str, ...]) -> DocumentsRead:
        """What tells how a job ended is told when the registry has its end too: nobody is shown it, and then told that the job waits or is in no list.

        Raises DatabaseUnavailable.
        """
        if kind is Kind.ITEM:
            return await self._documents.read(tenant, kind, prompt_ids)
        over = [job for job in self._open(prompt_ids) if job.is_over]
        for job in over:
            self._close_soon(job.prompt_id)
        await _wait_until_closed(over)
        read = await self._documents.read(tenant, kind, prompt_ids)
        # A commit can be read before its writer hears of it: SQLite may move its log into the file first.
        await _wait_until_closed(self._open(read.documents))
        return read

    def _open(self, prompt_ids: Iterable[str]) -> list[Job]:
        """Of these jobs those whose end the registry has not."""
        jobs = (self._registry.job(prompt_id) for prompt_id in prompt_ids)
        return [job for job in jobs if job is not None and job.state is not JobState.ENDED]

    async def amend(self, prompt_id: str, outputs: bytes) -> None:
        """outputs: which ComfyUI runs. It has the job by now: where the database is gone, what is shown of it says too much, and no more is wrong."""
        try:
            await self._documents.amend(prompt_id, outputs)
        except DatabaseUnavailable as error:
            _log.warning("which outputs of job %s run is not recorded: %s", prompt_id, error)

    async def is_draining(self) -> bool:
        """Whether ComfyUI, the first of several, is to be given no jobs. Raises DatabaseUnavailable."""
        return await self._documents.is_draining()

    def is_kept_waiting(self, tenant: TenantId) -> bool:
        """Whether it is to be given none of this tenant's for a moment."""
        return self._records.unsettled.keep(tenant)

    async def cancel_waiting(self, tenant: TenantId, prompt_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Ids of those that waited outside ComfyUI. Of such as are just given to it, it is asked until it can have heard of them. Raises
        DatabaseUnavailable.
        """
        canceled = await self._records.cancel_waiting(tenant, prompt_ids)
        for prompt_id in prompt_ids:
            job = self._registry.job(prompt_id)
            if job is not None and job.tenant == tenant and job.is_being_sent:
                await self._records.unwanted(job)
                self.cancel(job)
        for job in canceled:
            self.canceled(job)
        return tuple(job.prompt_id for job in canceled)

    def canceled(self, job: Job) -> None:
        """It waited, and is gone."""
        self._admission.let_go(job)
        self._on_canceled(job)

    async def forget(self, tenant: TenantId, prompt_ids: tuple[str, ...]) -> None:
        """Raises DatabaseUnavailable."""
        forgotten = await self._records.forget(tenant, prompt_ids)
        for job in forgotten:
            self._admission.let_go(job)
        had = {job.prompt_id: job.comfyui for job in forgotten}
        parts: dict[Upstream, list[str]] = {}
        for prompt_id in prompt_ids:
            parts.setdefault(self._upstream.of(had.get(prompt_id, "")), []).append(prompt_id)
        for upstream, theirs in parts.items():
            self._tasks.start(_delete_upstream(upstream, theirs), "delete from ComfyUI's history")

    def cancel(self, job: Job) -> None:
        """Somebody wants it to end: it is taken out of ComfyUI's queue, or stopped. ComfyUI is asked again, as long as it has the job and does not answer."""
        if job.prompt_id not in self._canceling:
            self._canceling.add(job.prompt_id)
            self._tasks.start(self._cancel(job), "cancel a job")

    async def _cancel(self, job: Job) -> None:
        try:
            for failures in itertools.count():
                may_come = job.is_being_sent
                if await self._ask_to_cancel(job) and not may_come:
                    return
                await asyncio.sleep(_CANCEL_AGAIN_S[min(failures, len(_CANCEL_AGAIN_S) - 1)])
                if job.state not in GIVEN or self._registry.job(job.prompt_id) is not job:
                    return
        finally:
            self._canceling.discard(job.prompt_id)

    async def _ask_to_cancel(self, job: Job) -> bool:
        """False where ComfyUI did not say that it has heard of it."""
        calls = (
            json_call("POST", ("queue",), {"delete": [job.prompt_id]}, (job.prompt_id,)),
            json_call("POST", ("interrupt",), {"prompt_id": job.prompt_id}, (job.prompt_id,)),
        )
        try:
            replies = [await self._upstream.ask(call, time_limit_s=_DELETE_LIMIT_S) for call in calls]
        except (UpstreamTimeout, UpstreamUnavailable) as error:
            _log.warning("ComfyUI does not cancel job %s (%s)", job.prompt_id, error)
            return False
        return all(reply.status < 500 for reply in replies)


async def _wait_until_closed(jobs: Sequence[Job]) -> None:
    if not jobs:
        return
    closed = [job.closed or asyncio.Event() for job in jobs]
    for job, event in zip(jobs, closed, strict=True):
        job.closed = event
    try:
        async with asyncio.timeout(CLOSING_LIMIT_S):
            for event in closed:
                await event.wait()
    except TimeoutError:
        return  # it is shown when its end has been read


async def _delete_upstream(upstream: Upstream, prompt_ids: list[str]) -> None:
    """What ComfyUI still has of them. Where it cannot be asked it is likely to have lost them anyway, and nobody is shown them."""
    call = json_call("POST", ("history",), {"delete": prompt_ids})
    try:
        await upstream.ask(call, time_limit_s=_DELETE_LIMIT_S)
    except (UpstreamTimeout, UpstreamUnavailable):
        return


async def read_ended(documents: JobDocuments, job: Job) -> Mapping[str, Any] | None:
    """The history entry of a job that has ended, in its client's names; None when there is none, or it cannot be read now."""
    try:
        read = await documents.read(job.tenant, Kind.ENTRY, (job.prompt_id,))
    except DatabaseUnavailable:
        return None
    entry = read.documents.get(job.prompt_id)
    found: Mapping[str, Any] | None = None if entry is None else orjson.loads(entry.numbered(0))
    return found

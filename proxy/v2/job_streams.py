"""What happens to jobs, as it happens, for whoever follows one: their states by the registry, their ends and results by the gate's database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import orjson

from policy.principal import TenantId
from policy.rules.results import SDK_CLIENT
from policy.v2.assets import Asset
from policy.v2.jobs import ENDED, JobView
from policy.v2.progress import Plan, Progress
from proxy.http.errors import LimitExceeded
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import Submitted
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import submission
from proxy.limits.heavy_work import SPACED_BYTES, HeavyWork
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.v2 import followed_job
from proxy.v2.event_stream import Viewer
from proxy.v2.followed_job import FollowedJob
from proxy.v2.followed_jobs import FollowedJobs
from proxy.v2.job_status import place_in_queue, status_of_job

Find = Callable[[TenantId, str], Awaitable[JobView | None]]
"""A job as its tenant sees it, None for what is not the tenant's. Raises DatabaseUnavailable."""
_TRY_AGAIN_S: Final = 1.0

_log = logging.getLogger("comfygate")


async def _find_nothing(tenant: TenantId, prompt_id: str) -> JobView | None:
    return None


class JobStreams:
    """find: set when everything is built. reading: of large workflows, for how far their jobs are."""

    def __init__(
        self, database: Database, registry: JobRegistry, followed: FollowedJobs, reading: HeavyWork | None = None
    ) -> None:
        self._database = database
        self._registry = registry
        self._followed = followed
        self._reading = reading or HeavyWork()
        self.find: Find = _find_nothing
        self._stale: set[TenantId] = set()
        self._tasks = Tasks()
        followed.on_gone = self._gone

    async def stop(self) -> None:
        self._followed.stop()
        await self._tasks.stop()

    # Who asks.

    async def look_at(self, tenant: TenantId, prompt_id: str) -> tuple[Progress | None, tuple[Asset, ...]]:
        """How far a job is that runs, None where nothing is known of it yet; and what it has made so far."""
        followed = self._followed.get(tenant, prompt_id)
        if followed is None:
            return None, ()
        await asyncio.shield(self._plan(followed))
        return followed.progress(), tuple(followed.outputs.values())

    def attach(self, tenant: TenantId, prompt_id: str, stream: Viewer) -> None:
        """It is told what happens to this job of its tenant's from now on, and ended when there is no more to tell."""
        followed = self._followed.watch(tenant, prompt_id)
        stream.at_end(partial(self._detach, followed, stream))
        if stream.is_open:
            self._join(followed, stream)

    def _join(self, followed: FollowedJob, stream: Viewer) -> None:
        tenant, job = followed.tenant, self._followed.job(followed)
        if job is None or followed.is_closing:
            followed.late[stream] = None
            self._close(followed)
            return
        place = place_in_queue(self._registry.of(tenant), job)
        followed.join(stream, status_of_job(job), place, self._followed.expires_at_s(job))
        if stream.hears_progress:  # a workflow's plan is some 20 KiB
            self._plan(followed)

    def _let_in(self, followed: FollowedJob) -> None:
        """Its end was none."""
        late, followed.late = followed.late, {}
        for stream in late:
            self._join(followed, stream)

    def _detach(self, followed: FollowedJob, stream: Viewer) -> None:
        followed.leave(stream)
        job = self._followed.job(followed)
        if not followed.has_clients and not followed.is_closing and (job is None or job.state is not JobState.RUNNING):
            self._followed.drop(followed)

    # What the registry tells (proxy/jobs/events.py).

    def job_changed(self, job: Job) -> None:
        """It waits, runs, or has ended; or it is gone."""
        followed = self._followed.get(job.tenant, job.prompt_id)
        if followed is not None:
            if self._followed.job(followed) is job:
                followed.tell_status(status_of_job(job), place_in_queue(self._registry.of(job.tenant), job))
            else:
                self._gone(followed)
        if len(self._followed) and job.tenant not in self._stale:
            self._stale.add(job.tenant)
            asyncio.get_running_loop().call_soon(self._move_up, job.tenant)

    def job_ended(self, job: Job) -> None:
        """This gate has seen its end: what a job of the API made is measured while its files are new, others' when somebody asks."""
        if job.client_id == SDK_CLIENT:
            self._close(self._followed.ensure(job.tenant, job.prompt_id))
        self.job_changed(job)

    def _move_up(self, tenant: TenantId) -> None:
        """Others of the tenant's may have another place among those that wait."""
        self._stale.discard(tenant)
        own = self._registry.of(tenant)
        for followed in self._followed.of(tenant):
            if followed.audience and (job := self._followed.job(followed)) is not None:
                followed.tell_status(status_of_job(job), place_in_queue(own, job))

    def _gone(self, followed: FollowedJob) -> None:
        if followed.has_clients:
            self._close(followed)
        elif not followed.is_closing:
            self._followed.drop(followed)

    def _close(self, followed: FollowedJob) -> None:
        if not followed.is_closing:
            followed.is_closing = True
            self._tasks.start(self._finish(followed), "end of a followed job")

    async def _finish(self, followed: FollowedJob) -> None:
        while (job := await self._found(followed)) is not None and job.status not in ENDED:
            if self._followed.job(followed) is not None:  # it is tried again
                followed.is_closing = False
                followed.tell_status(job.status, job.queue_position)
                self._let_in(followed)
                return
            await asyncio.sleep(_TRY_AGAIN_S)  # another gate has it, and this one has not heard of that yet
        self._followed.drop(followed)
        followed.end(job)

    async def _found(self, followed: FollowedJob) -> JobView | None:
        """As soon as the database can be used, while somebody waits for it; None where there is none, or nobody does."""
        while True:
            try:
                return await self.find(followed.tenant, followed.prompt_id)
            except DatabaseUnavailable as error:
                _log.warning("how job %s ended cannot be told yet: %s", followed.prompt_id, error)
                if not followed.has_clients:
                    return None
                await asyncio.sleep(_TRY_AGAIN_S)

    def _plan(self, followed: FollowedJob) -> asyncio.Task[None]:
        if followed.planning is None:
            followed.planning = self._tasks.start(self._read_plan(followed), "plan of a job")
        return followed.planning

    async def _read_plan(self, followed: FollowedJob) -> None:
        """What of its workflow runs; nothing where that cannot be read."""
        tenant = followed.tenant
        try:
            size, submitted = await self._database.read(submission, tenant, followed.prompt_id, SPACED_BYTES)
            if size > SPACED_BYTES:
                # SECURITY: streams of a large workflow, begun and left again and again, would keep everybody waiting (tests/security/test_plans.py).
                await self._reading.space(tenant, size)
                if self._followed.get(tenant, followed.prompt_id) is not followed:  # nobody wants it any more
                    followed.planning = None
                    return
                _, submitted = await self._database.read(submission, tenant, followed.prompt_id, size)
            work = partial(_plan_of, submitted)
            followed.plan = await self._reading.run(tenant, work, 0 if submitted is None else len(submitted.body))
        except DatabaseUnavailable as error:
            _log.warning("how far job %s is cannot be told: %s", followed.prompt_id, error)
            followed.plan = _plan_of(None)
        except LimitExceeded:  # whoever looks next has it read
            followed.planning = None
        followed.audience.changed(followed_job.PROGRESS)


def _plan_of(submitted: Submitted | None) -> Plan:
    if submitted is None:
        return Plan({}, ())
    return Plan(orjson.loads(submitted.body).get("prompt"), orjson.loads(submitted.outputs))

"""What has to be done with recorded jobs from time to time: leases, jobs that never came to be, and what is kept for how long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from proxy.config.jobs import JobsSettings
from proxy.jobs.doubts import UNSURE
from proxy.jobs.job import GIVEN, Job, JobState
from proxy.jobs.job_rows import Bounds
from proxy.jobs.records import LEASE_S, JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import leases
from proxy.jobs.store_upkeep import RETAINED_AT_ONCE, drop_wished, leave, renew_leases, retain, take_over
from proxy.persistence.operations import Database, DatabaseUnavailable

RETAIN_EACH_S: Final = 60.0
UNSURE_S: Final = 120.0
"""A submission without an answer is in ComfyUI's queue by then, or nowhere."""

_log = logging.getLogger("comfygate")


class Housekeeping:
    """request_sync: has ComfyUI's queue read, when more jobs are followed here. settings: in force. tenants: all of whom there are jobs, also those that
    were taken out: a name may be given again. on_dropped: told how many jobs
    of a tenant are kept no more, by the reason.
    """

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        records: JobRecords,
        request_sync: Callable[[], None],
        settings: Callable[[], JobsSettings],
        tenants: Callable[[], Iterable[str]],
        on_dropped: Callable[[str, str, int], None] = lambda tenant, reason, count: None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._records = records
        self._request_sync = request_sync
        self._settings = settings
        self._tenants = tenants
        self._on_dropped = on_dropped
        self._is_left = asyncio.Event()
        self.on_taken_over: Callable[[Job], None] = lambda job: None
        """Called with a job that another gate followed, which is gone."""

    def changed_elsewhere(self, job: Job) -> None:
        """Another gate may have stopped, and left it to whoever comes first."""
        if not job.gate and job.state in GIVEN:
            self._is_left.set()

    async def follow(self) -> None:
        """Keeps this gate's leases, and takes over what another gate followed that is gone."""
        while True:
            try:
                async with asyncio.timeout(LEASE_S / 3):
                    await self._is_left.wait()
            except TimeoutError:
                pass
            self._is_left.clear()
            try:
                await self.keep_leases()
            except DatabaseUnavailable as error:
                _log.warning("leases of jobs cannot be renewed: %s", error)

    async def clean(self) -> None:
        while True:
            try:
                await self._database.run(drop_wished, UNSURE, time.time() - UNSURE_S)
                await self.retain_all()
            except DatabaseUnavailable as error:
                _log.warning("old jobs cannot be deleted: %s", error)
            await asyncio.sleep(RETAIN_EACH_S)

    async def keep_leases(self) -> None:
        """Renews this gate's, and follows the jobs of gates that did not renew theirs."""
        if not self._registry.tally.given:
            return
        gate, now_s = self._records.gate, time.time()
        await self._database.run(renew_leases, gate, now_s + LEASE_S)
        if any(lease.until_s < now_s for lease in await self._database.read(leases)):
            await self._database.run(take_over, gate, now_s, now_s + LEASE_S)
        # What stands there counts, also where nobody said that it was written.
        taken = [lease.prompt_id for lease in await self._database.read(leases, UNSURE) if lease.gate == gate]
        # Whatever went wrong: what nobody follows would keep its place in ComfyUI's window for ever.
        self._records.is_uncertain |= not all(map(self._registry.knows, taken))
        jobs = [job for prompt_id in taken if (job := self._registry.job(prompt_id)) is not None and job.gate != gate]
        for job in jobs:
            job.gate = gate
            self.on_taken_over(job)
        if jobs:
            _log.warning("%d jobs were followed by a gate that is gone: this one goes on with them", len(jobs))
            self._request_sync()

    async def leave(self) -> None:
        """The gate stops, and nothing of it follows a job any more: the other gates of its database go on with them at once."""
        given = self._registry.tally.given
        if not given or not self._database.is_shared:
            return
        unsure = [prompt_id for prompt_id, job in given.items() if job.state is JobState.SENT]
        try:
            await self._database.run(leave, self._records.gate, unsure)
        except DatabaseUnavailable as error:
            _log.warning("other gates follow the jobs of this one when its leases have ended: %s", error)

    async def retain_all(self) -> None:
        for tenant in list(self._tenants()):
            await self.retain(tenant)

    async def retain(self, tenant: str) -> None:
        """Deletes what is too much of what ended."""
        settings = self._settings()
        bounds = Bounds(time.time() - settings.history, settings.history_jobs, settings.history_bytes)
        is_done = False
        while not is_done:
            dropped = await self._database.run(retain, tenant, bounds)
            for bound, prompt_ids in dropped.items():
                self._records.let_go(prompt_ids)
                if prompt_ids:
                    self._on_dropped(tenant, bound, len(prompt_ids))
            is_done = sum(map(len, dropped.values())) < RETAINED_AT_ONCE

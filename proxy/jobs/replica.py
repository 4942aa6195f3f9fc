"""What is on disk of jobs, brought into the registry: at the start, and after another process has written: another gate, or the operator's commands."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from policy.call import Place
from proxy.config.comfyui import FIRST
from proxy.jobs.doubts import UNSURE
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import CANCEL, JobRow, StoredState
from proxy.jobs.records import LEASE_S, JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_reading import changes
from proxy.jobs.store_upkeep import NOT_SENT, settle_unsaid, take_over
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks

_log = logging.getLogger("comfygate")


class JobReplica:
    """on_foreign_change: called with a job of which another process has written. on_cancel_wish: with one that ComfyUI has, and the operator wants to end."""

    def __init__(self, database: Database, registry: JobRegistry, records: JobRecords) -> None:
        self._database = database
        self._registry = registry
        self._records = records
        self._version = 0
        self._unwanted: set[str] = set()
        self._tasks = Tasks()
        self.on_foreign_change: Callable[[Job], None] = lambda job: None
        self.on_cancel_wish: Callable[[Job], None] = lambda job: None

    async def load(self) -> None:
        """At the start: all that is kept."""
        found = await self._database.read(changes, 0)
        self._version = found.version
        _tell_unfollowed(found.jobs, self._registry.comfyuis)
        for row in sorted(found.jobs, key=lambda row: row.sequence):
            if row.wish != UNSURE and not row.left_no_trace:
                self._registry.apply(row)
        self._unwanted = {row.prompt_id for row in found.jobs if row.wish == CANCEL and not row.has_ended}
        if not self._database.is_shared:  # whoever followed them is gone
            for prompt_id in await self._database.run(take_over, self._records.gate, math.inf, time.time() + LEASE_S):
                if (job := self._registry.job(prompt_id)) is not None:
                    job.gate = self._records.gate

    def cancel_unwanted(self) -> None:
        """ComfyUI's queue has been read: what the operator wanted to end while no gate was there."""
        for prompt_id in self._unwanted:
            if (job := self._registry.job(prompt_id)) is not None and job.gate == self._records.gate:
                self.on_cancel_wish(job)
        self._unwanted.clear()

    async def current(self) -> None:
        """Before a tenant's jobs are read: what another gate has written of them is known by then, unless the database is gone."""
        if self._database.is_shared:
            await self._follow()

    def follow(self) -> Callable[[], None]:
        """Keeps up with what other processes write; what is returned ends it."""
        return self._database.on_change(self._look)

    def _look(self) -> None:
        self._tasks.start(self._follow(), "jobs written elsewhere")

    async def _follow(self) -> None:
        try:
            await self.catch_up()
        except DatabaseUnavailable as error:
            _log.warning("what other gates do with jobs is not known: %s", error)

    async def stop(self) -> None:
        await self._tasks.stop()

    async def catch_up(self) -> None:
        """What other processes have written."""
        found = await self._database.read(changes, self._version)
        self._version = max(self._version, found.version)
        for row in found.jobs:
            self._take(row)
        for prompt_id in found.forgotten:
            job = self._registry.job(prompt_id)
            if job is not None and job.state is not JobState.CLAIMED and job.version <= found.version:
                self._registry.release(prompt_id)
                self.on_foreign_change(job)

    def _take(self, row: JobRow) -> None:
        job = self._registry.job(row.prompt_id)
        is_ours = row.gate == self._records.gate and not row.has_ended and row.state != StoredState.WAITING
        if row.wish == UNSURE and job is not None and job.gate == row.gate != self._records.gate:
            # Another gate does not know whether ComfyUI has it: whoever finds it there takes it up, and nobody does who takes it for known.
            self._registry.release(row.prompt_id)
            self.on_foreign_change(job)
        if row.wish == UNSURE or row.prompt_id in self._records.unsaid or (job is None and row.left_no_trace):
            return
        if job is not None and row.wish == CANCEL and row.gate == self._records.gate:
            job.is_unwanted = True
            self.on_cancel_wish(job)
        # What this gate is doing itself is known here better than there.
        if (is_ours and job is not None) or (
            job is not None and (row.version <= job.version or job.state in (JobState.CLAIMED, JobState.SENT))
        ):
            return
        job = self._registry.apply(row)
        if row.has_ended and job.closed is not None:
            job.closed.set()
        if row.left_no_trace:
            self._registry.release(row.prompt_id)
        self.on_foreign_change(job)

    async def recover(self) -> None:
        """Jobs that were given, and nobody said so to this gate. Of those that it does not know the queue watcher sees whether ComfyUI has them."""
        for prompt_id in list(self._records.unsaid):
            await self._settle_unsaid(prompt_id)
        found = await self._database.read(changes, 0)
        for row in found.jobs:
            job = self._registry.job(row.prompt_id)
            is_given = row.gate == self._records.gate and not row.has_ended and row.state != StoredState.WAITING
            is_given &= row.wish != UNSURE  # that is not known of it, and nobody follows it until it is
            if is_given and job is None:
                self._registry.apply(row)
            elif is_given and job is not None and job.state is JobState.WAITING:  # it was never sent
                await self._records.give_back(job, NOT_SENT, row.number)
        self._records.is_uncertain = False

    async def _settle_unsaid(self, prompt_id: str) -> None:
        tenant, place = self._records.unsaid[prompt_id]
        gate = self._records.gate if place is Place.NEXT else ""
        row = await self._database.run(settle_unsaid, tenant, prompt_id, gate, time.time())
        # Until here nobody was told of it, and from here on it stays.
        del self._records.unsaid[prompt_id]
        if row is not None and not row.left_no_trace:
            self.on_foreign_change(self._registry.apply(row))


def _tell_unfollowed(rows: Iterable[JobRow], comfyuis: Sequence[str]) -> None:
    """comfyuis: names of those that there are, the first one first, which may have had another name before."""
    given = (row.comfyui for row in rows if row.state in (StoredState.DISPATCHED, StoredState.RUNNING))
    for name, count in Counter(given).items():
        if name not in ("", FIRST, *comfyuis):
            _log.warning(
                "ComfyUI %s is not in the configuration, and has %d jobs: %s is asked for them, and what it has not goes on as after a restart",
                *(name, count, comfyuis[0]),
            )

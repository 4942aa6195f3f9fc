"""The registry and the gate's database, changed together: what is on disk first, and in memory then.

Every method raises DatabaseUnavailable when the database cannot be used; nothing has changed then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from policy.call import NO_EXTRAS, JobExtras, Place
from policy.documents import Document
from policy.fairness import span_of
from policy.placement import ReadyIn, Seat, ready_anywhere
from policy.principal import TenantId
from policy.rules.prompt import LAST_PLACE
from proxy.jobs import store_operations as store
from proxy.jobs import store_upkeep
from proxy.jobs.doubts import JobDoubts
from proxy.jobs.job import Job
from proxy.jobs.job_rows import CANCEL, Ended, Given, JobRow, StoredState, Submitted
from proxy.jobs.noted import AlreadyNoted, Note, noted
from proxy.jobs.registry import JobRegistry, row_of
from proxy.jobs.store_giving import give
from proxy.jobs.store_placing import KnownNeeds, give_to_several
from proxy.jobs.store_reading import owner_of
from proxy.jobs.unsettled import UnsettledJobs
from proxy.persistence.operations import Database, DatabaseUnavailable

LEASE_S: Final = 10.0
"""A gate that has not renewed its leases for so long is gone, and another one follows its jobs."""


class Unsaid(NamedTuple):
    """place: where it was to come."""

    tenant: TenantId
    place: Place


class JobRecords:
    """gate: names this process among those that share the database. window: how many jobs ComfyUI gets at a time. weights: by tenant."""

    def __init__(
        self,
        database: Database,
        registry: JobRegistry,
        gate: str,
        window: Callable[[], int],
        weights: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._registry = registry
        self.window = window
        self._weights = weights
        self._clock = clock
        self._known_needs: KnownNeeds = {}
        self.is_uncertain = False
        """Whether jobs may stand in the database as given by this process of which it does not know."""
        self.unsaid: dict[str, Unsaid] = {}
        """Jobs that may be on disk although their clients were told that they are not."""
        self.gate = gate
        self.doubts = JobDoubts(database, registry, gate, clock)
        self.unsettled = UnsettledJobs(registry, clock)
        self.copies_results = False
        """Whether what jobs make is to be copied (proxy/copies/)."""
        self.on_canceled: Callable[[Job], None] = lambda job: None
        """Called for each that is canceled where it would wait again."""

    async def is_foreign(self, tenant: TenantId, prompt_id: str) -> bool:
        """Whether another tenant has, or lately had, a job of this id."""
        owner = await self._database.read(owner_of, prompt_id)
        return owner is not None and owner != tenant

    async def record(
        self, job: Job, submitted: Submitted, place: Place, extras: JobExtras = NO_EXTRAS, note: Note | None = None
    ) -> float | None:
        """Puts a claimed job on disk, with a note; its number where it goes to ComfyUI now, None where it waits. Raises JobIdTaken, AssetGone, AlreadyNoted."""
        now_s = self._clock()
        comfyui = self._registry.comfyuis[0]
        attempts = "[]" if place is Place.WAITING else orjson.dumps([{"at": now_s, "comfyui": comfyui}]).decode()
        row = row_of(job, comfyui=comfyui, gate=self.gate, lease_until_s=now_s + LEASE_S, attempts=attempts)
        try:
            placed = await self._place(row, submitted, place, job, extras, note)
        except DatabaseUnavailable:
            self.unsaid[job.prompt_id] = Unsaid(job.tenant, place)
            self.is_uncertain = True
            raise
        self.unsaid.pop(job.prompt_id, None)
        if isinstance(placed, AlreadyNoted):
            raise placed
        if placed is None and place is Place.THERE:  # another gate has taken it up from ComfyUI's queue
            placed = await self._database.run(store.confirm, job.prompt_id)
        if placed is None:
            return None
        taken = self._registry.apply(placed)
        if place is Place.NEXT:
            self._registry.sent(taken)
        elif place is Place.THERE:
            taken.seen_in = self._registry.connections.to(taken.comfyui)
        return None if place is Place.WAITING else placed.number

    async def _place(
        self, row: JobRow, submitted: Submitted, place: Place, job: Job, extras: JobExtras, note: Note | None
    ) -> JobRow | AlreadyNoted | None:
        match place:
            case Place.NEXT:
                weight = self._weights().get(job.tenant, 1.0)
                window = 0 if self.unsettled.keep(job.tenant) else self.window()
                return await self._database.run(
                    noted,
                    note,
                    store.add_next,
                    row,
                    submitted,
                    window,
                    weight,
                    extras,
                    has_others=self._registry.comfyuis.has_others,
                )
            case Place.WAITING:
                return await self._database.run(noted, note, store.add_waiting, row, submitted, extras)
        span = span_of(job.cost_s, self._weights().get(job.tenant, 1.0))
        there = row._replace(state=StoredState.DISPATCHED, number=LAST_PLACE + job.sequence, span=span)
        return await self._database.run(noted, note, store.adopt, there, submitted, None, None, extras)

    async def adopt(
        self, row: JobRow, submitted: Submitted | None, entry: Document | None = None, shown: Document | None = None
    ) -> Job | None:
        """Takes up a job that ComfyUI has, with what it was submitted as or how it ended; None when it was deleted."""
        row = row._replace(gate=self.gate, lease_until_s=self._clock() + LEASE_S)
        kept, told = (None if each is None else each.to_bytes() for each in (entry, shown))
        try:
            placed = await self._database.run(store.adopt, row, submitted, kept, told, is_copied=self.copies_results)
            if placed is None:
                placed = await self._database.run(store.confirm, row.prompt_id)
        except DatabaseUnavailable:
            self.is_uncertain = True  # it may stand there as one that this gate follows
            raise
        return None if placed is None else self._registry.apply(placed)

    async def give(self, seats: Sequence[Seat] = (), ready_in: ReadyIn = ready_anywhere) -> list[Given]:
        """Who goes to ComfyUI now; with seats to which of several (proxy/jobs/store_placing.py)."""
        now_s = self._clock()
        last = (self.gate, now_s, now_s + LEASE_S, self._weights(), self.unsettled.tenants())
        try:
            if seats:
                has_others = self._registry.comfyuis.has_others
                given = await self._database.run(
                    give_to_several, seats, ready_in, *last, self._known_needs, has_others=has_others
                )
            else:
                given = await self._database.run(give, self._registry.comfyuis[0], self.window(), *last)
        except BaseException:
            self.is_uncertain = True  # of what became of it, where the database was lost at its commit
            raise
        for each in given:
            self._registry.sent(self._registry.apply(each.job))
        return given

    async def start(self, prompt_id: str, started_at_s: float) -> None:
        row = await self._database.run(store.start, prompt_id, started_at_s)
        job = self._registry.job(prompt_id)
        if row is not None and job is not None:
            job.version = row.version

    async def finish(self, job: Job, ended: Ended) -> JobRow | None:
        """None when it is gone. The registry is told by `JobRegistry.end`."""
        ended = ended._replace(is_copied=self.copies_results)
        row = await self._database.run(store.finish, job.prompt_id, ended)
        if row is not None:
            job.version, job.attempts = row.version, tuple(row.told_attempts())
        return row

    async def give_back(self, job: Job, reason: str, number: float | None = None) -> bool:
        """It waits again; False when it has ended meanwhile, is gone, or was given anew by another gate. number: that it was given with, where this
        process was not told."""
        given_as = job.number if number is None else number
        row = await self._database.run(store.give_back, job.prompt_id, self._clock(), reason, given_as)
        if row is None:
            self._registry.release(job.prompt_id)
            return False
        job.over_at_s = None
        self._registry.apply(row)
        if row.left_no_trace:
            self._registry.release(job.prompt_id)
            self.on_canceled(job)
        return row.state == StoredState.WAITING

    async def stop_after(self, job: Job, limit_s: int) -> None:
        await self._database.run(store.stop_after, job.prompt_id, limit_s)

    async def cancel_waiting(self, tenant: TenantId, prompt_ids: Sequence[str]) -> list[Job]:
        """Ends those that wait outside ComfyUI; they are in the registry no more."""
        canceled = await self._database.run(store.cancel_waiting, tenant, prompt_ids, self._clock())
        return self.let_go(canceled)

    async def unwanted(self, job: Job) -> None:
        """Somebody wants its end: the gate that follows it asks ComfyUI for that, also after a restart."""
        if await self._database.run(store_upkeep.wish, job.prompt_id, CANCEL):
            job.is_unwanted = True

    async def forget(self, tenant: TenantId, prompt_ids: Sequence[str]) -> list[Job]:
        """Deletes jobs of the tenant's."""
        await self._database.run(store.forget, tenant, prompt_ids)
        return self.let_go(prompt_ids)

    def let_go(self, prompt_ids: Iterable[str]) -> list[Job]:
        """They are on disk no more."""
        jobs = [job for prompt_id in prompt_ids if (job := self._registry.job(prompt_id)) is not None]
        for job in jobs:
            self._registry.release(job.prompt_id)
        return jobs

"""What follows jobs, put together as the gate does, with a database of its own and an upstream of the test's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from policy.call import Place
from policy.principal import TenantId
from proxy.jobs.dispatcher import dispatcher_of_one
from proxy.jobs.endings import JobEndings
from proxy.jobs.events import JobEvent
from proxy.jobs.job import Job
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.job_rows import JobRow, Submitted
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.sender import Sender
from proxy.jobs.store_reading import find
from proxy.persistence.operations import Database
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}, "2": {"class_type": "SaveImage", "inputs": {}}}
SUBMITTED = Submitted(
    b'{"prompt":{"1":{"class_type":"EmptyImage","inputs":{}},"2":{"class_type":"SaveImage","inputs":{}}},'
    b'"extra_data":{"client_id":"alice.tab"},"client_id":"alice.tab"}',
    b"[]",
    b'["2"]',
)


class Following:
    """told: what became of which job, in order. now_s: the time for all but what ComfyUI says. gone_after_s: as where there are other ComfyUIs."""

    def __init__(
        self, upstream: Any, database: Database, gate: str = "gate/1", gone_after_s: float | None = None
    ) -> None:
        self.database, self.upstream = database, upstream
        self.now_s, self.window, self.retries_interrupted, self.is_ready = time.time(), 2, True, True
        self.weights: Mapping[str, float] = {}
        self.told: list[tuple[str, str]] = []
        self.outcomes: list[tuple[str, Any]] = []
        self.entries: list[Mapping[str, Any]] = []
        self.registry = JobRegistry(self.clock)
        self.registry.connections.made("default")
        self.records = JobRecords(database, self.registry, gate, lambda: self.window, lambda: self.weights, self.clock)
        self.documents, self.kept = JobDocuments(database, self.registry), KeptDocuments()
        self.replica = JobReplica(database, self.registry, self.records)
        on_ended = JobEvent()
        on_ended.subscribe(self._noting("ended"), lambda job: self.outcomes.append((job.prompt_id, job.outcome)))
        self.endings = JobEndings(
            upstream,
            self.registry,
            self.records,
            self.documents,
            self.kept,
            lambda: self.retries_interrupted,
            on_ended,
            self._noting("waits"),
            lambda job, entry: self.entries.append(entry),
            self.clock,
        )
        self.watcher = QueueWatcher(
            upstream,
            self.registry,
            self.records,
            self.endings,
            on_started=self._noting("started"),
            gone_after_s=gone_after_s,
        )
        self.sender = Sender(
            "default", upstream, self.registry, self.records, lambda: self.is_ready, self.endings.refused
        )
        self.dispatcher = dispatcher_of_one(self.sender, self.registry, self.records, self.replica)

    def clock(self) -> float:
        return self.now_s

    def _noting(self, what: str) -> Callable[[Job], None]:
        return lambda job: self.told.append((what, job.prompt_id))

    async def recorded(
        self, tenant: TenantId = ALICE, place: Place | None = None, prompt_id: str | None = None, **more: Any
    ) -> Job:
        """A job on disk: on its way to ComfyUI where that has room, else it waits."""
        job = self.registry.claim(tenant, prompt_id, client_id="tab", cost_s=10.0, **more)
        if place is not None:
            await self.records.record(job, SUBMITTED, place)
        elif await self.records.record(job, SUBMITTED, Place.NEXT) is None:
            await self.records.record(job, SUBMITTED, Place.WAITING)
        return job

    async def taken(self, tenant: TenantId = ALICE, **more: Any) -> Job:
        """A job that ComfyUI has taken."""
        job = await self.recorded(tenant, **more)
        self.registry.dispatched(job.prompt_id)
        return job

    async def running(self, tenant: TenantId = ALICE, **more: Any) -> Job:
        """A job that ComfyUI runs."""
        job = await self.taken(tenant, **more)
        self.registry.start(job)
        await self.records.start(job.prompt_id, self.now_s)
        return job

    async def row(self, prompt_id: str) -> JobRow | None:
        return await self.database.read(find, prompt_id)

    async def stored(self, prompt_id: str) -> JobRow:
        row = await self.row(prompt_id)
        assert row is not None
        return row


@asynccontextmanager
async def opened(folder: Path | None = None) -> AsyncIterator[Database]:
    """A database in this folder, or in one of its own that is gone at the end."""
    with TemporaryDirectory() as made:
        database = SqliteDatabase((folder or Path(made)) / STATE_FILE)
        await database.open()
        try:
            yield database
        finally:
            await database.close()


@asynccontextmanager
async def following(upstream: Any, folder: Path | None = None) -> AsyncIterator[Following]:
    async with opened(folder) as database:
        parts = Following(upstream, database)
        try:
            yield parts
        finally:
            await parts.watcher.stop()

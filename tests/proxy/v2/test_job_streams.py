"""Who is told what of a job, in whatever order things happen: events of ComfyUI's, changes of the registry, clients that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from policy.namespace import Namespace
from policy.principal import TenantId
from policy.rules.events import EventRules
from policy.rules.results import SDK_CLIENT
from policy.v2.jobs import JobView, Status
from policy.v2.links import Links
from proxy.files.directories import Directories
from proxy.files.tenant_files import TenantFiles
from proxy.jobs.job import Job, JobState, Outcome
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.registry import JobRegistry
from proxy.limits.heavy_work import HeavyWork
from proxy.persistence.operations import DatabaseUnavailable
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from proxy.upstream.client import Upstream
from proxy.v2 import followed_jobs, job_streams
from proxy.v2.event_stream import EventStream, Piece
from proxy.v2.file_measuring import FileMeasuring
from proxy.v2.followed_jobs import FollowedJobs
from proxy.v2.job_end import JobEnd
from proxy.v2.job_hearing import JobHearing
from proxy.v2.job_streams import JobStreams
from proxy.v2.outputs import JobOutputs
from tests.proxy.conftest import opened
from tests.proxy.upstreams import GUARD_S

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")
PICTURE = b"\0\0\0\x01\0\0\0\x01\xff\xd8"


class Client(EventStream):
    """One whose connection takes everything. told: what it was sent."""

    def __init__(self) -> None:
        super().__init__(Links(), is_chunked=False)
        self.told: list[tuple[str, Any]] = []
        self.has_finished = False

    @property
    def is_open(self) -> bool:
        return not self.has_finished

    def send(self, piece: Piece) -> None:
        name, data, *_ = piece.data.decode().splitlines()
        self.told.append((name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))))

    def offer(self, kind: str, piece: Piece) -> None:
        self.send(piece)

    def finish(self, last: Piece | None = None) -> None:
        if last is not None:
            self.send(last)
        self.has_finished = True
        self.connection_lost(None)

    async def end(self) -> list[tuple[str, Any]]:
        async with asyncio.timeout(GUARD_S):
            while not self.has_finished:
                await asyncio.sleep(0)
        return self.told

    def states(self) -> list[Any]:
        return [(data["status"], data.get("queue_position")) for kind, data in self.told if kind == "status"]


class Hub:
    """The parts that tell, beside a registry whose jobs the test moves. views: what the database has of jobs that have ended."""

    def __init__(self, database: SqliteDatabase, upstream: Upstream) -> None:
        self.registry = JobRegistry()
        outputs = JobOutputs(
            database,
            JobDocuments(database, self.registry),
            self.registry,
            FileMeasuring(upstream, TenantFiles(upstream, HeavyWork()), Directories()),
        )
        self.followed = FollowedJobs(self.registry, lambda: 60.0)
        self.streams = JobStreams(database, self.registry, self.followed)
        self.hearing = JobHearing(self.registry, self.followed, outputs)
        self.outputs = outputs
        self.streams.find = self.find
        self.views: dict[str, JobView] = {}
        self.is_down = False
        self.rules = EventRules(Namespace(ALICE), SDK_CLIENT)

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        if self.is_down:
            raise DatabaseUnavailable
        return self.views.get(prompt_id)

    def job(self, tenant: TenantId = ALICE, client_id: str = SDK_CLIENT) -> Job:
        job = self.registry.claim(tenant, None, client_id=client_id)
        job.state = JobState.WAITING
        self.registry._index(job)
        return job

    def attach(self, job: Job, tenant: TenantId = ALICE) -> Client:
        client = Client()
        self.streams.attach(tenant, job.prompt_id, client)
        return client

    def start(self, job: Job) -> None:
        self.registry.start(job)
        self.streams.job_changed(job)

    def end(self, job: Job, status: Status = Status.SUCCEEDED) -> None:
        self.views[job.prompt_id] = JobView(job.prompt_id, status, 0.0, 60.0)
        job.outcome = Outcome.COMPLETED
        self.registry.end(job, {})
        self.streams.job_ended(job)

    def hear(self, kind: str, job: Job | None, **data: Any) -> None:
        message = {"type": kind, "data": data | ({} if job is None else {"prompt_id": job.prompt_id})}
        text = orjson.dumps(message).decode().replace('":', '": ').replace(',"', ', "')
        event = self.rules.text(text, self.registry.of(ALICE))
        if event is not None:
            self.hearing.heard(event, job, self.registry.of(ALICE))


@asynccontextmanager
async def hub_at(folder: Path) -> AsyncIterator[Hub]:
    upstream = Upstream("http://127.0.0.1:9", 1.0)
    async with opened(folder / STATE_FILE) as database:
        hub = Hub(database, upstream)
        yield hub
        await hub.streams.stop()
        await hub.hearing.stop()
        await hub.outputs.stop()
    await upstream.stop()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with hub_at(tmp_path / "state") as opened_hub:
        yield opened_hub


async def test_each_state_is_told_once(hub: Hub) -> None:
    job = hub.job()
    client = hub.attach(job)
    hub.streams.job_changed(job)
    hub.start(job)
    hub.start(job)
    hub.end(job)
    await client.end()
    assert client.states() == [("queued", 1), ("running", None), ("succeeded", None)]
    assert len(hub.followed) == 0


async def test_places_move_when_those_before_end(hub: Hub) -> None:
    jobs = [hub.job() for _ in range(3)]
    client = hub.attach(jobs[2])
    hub.start(jobs[0])
    await asyncio.sleep(0)
    hub.end(jobs[0])
    hub.start(jobs[1])
    await asyncio.sleep(0)
    assert client.states() == [("queued", 3), ("queued", 2), ("queued", 1)]


async def test_a_neighbours_jobs_move_nobody(hub: Hub) -> None:
    hub.job(MALLORY)
    job = hub.job()
    client = hub.attach(job)
    hub.start(hub.job(MALLORY))
    await asyncio.sleep(0)
    assert client.states() == [("queued", 1)]


async def test_a_job_that_is_another_tenants_is_as_one_that_is_not_there(hub: Hub) -> None:
    job = hub.job(MALLORY)
    theirs = hub.attach(job, MALLORY)
    client = hub.attach(job, ALICE)
    assert await client.end() == []
    assert await hub.streams.look_at(ALICE, job.prompt_id) == (None, ())
    hub.start(job)
    hub.end(job)
    await theirs.end()
    assert theirs.states() == [("queued", 1), ("running", None), ("succeeded", None)]


async def test_who_comes_while_the_end_is_read_is_told_all_of_it(hub: Hub) -> None:
    job = hub.job()
    first = hub.attach(job)
    hub.start(job)
    hub.end(job)
    late = hub.attach(job)
    assert late.told == []
    await first.end()
    assert (await late.end())[-1] == first.told[-1] == ("status", {"status": "succeeded"})


async def test_a_job_that_waits_again_has_not_ended(hub: Hub) -> None:
    job = hub.job()
    client = hub.attach(job)
    hub.start(job)
    hub.views[job.prompt_id] = JobView(job.prompt_id, Status.QUEUED, 0.0, 60.0, queue_position=1)
    followed = hub.followed.get(ALICE, job.prompt_id)
    assert followed is not None
    job.state = JobState.WAITING
    hub.registry._index(job)
    hub.streams._close(followed)
    late = hub.attach(job)
    while followed.is_closing:
        await asyncio.sleep(0)
    assert client.states()[-1] == ("queued", 1)
    assert late.states() == [("queued", 1)]
    hub.end(job)
    assert (await client.end())[-1] == (await late.end())[-1]


async def test_a_job_that_is_deleted_ends_its_streams_without_a_word(hub: Hub) -> None:
    job = hub.job()
    client = hub.attach(job)
    hub.registry.release(job.prompt_id)
    hub.streams.job_changed(job)
    assert await client.end() == [("status", {"status": "queued", "queue_position": 1})]


async def test_what_nobody_announced_is_found_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_jobs, "LOOK_EACH_S", 0.01)
    job, other = hub.job(), hub.job()
    client = hub.attach(job)
    hub.start(other)
    hub.hear("execution_start", other)
    assert len(hub.followed) == 2
    for each in (job, other):
        hub.registry.release(each.prompt_id)
    await client.end()
    async with asyncio.timeout(GUARD_S):
        while len(hub.followed):
            await asyncio.sleep(0.01)


async def test_an_end_is_told_when_the_database_can_be_read_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_streams, "_TRY_AGAIN_S", 0.01)
    hub.is_down = True
    jobs = [hub.job() for _ in range(2)]
    client = hub.attach(jobs[0])
    for job in jobs:
        hub.start(job)
        hub.end(job)
    async with asyncio.timeout(GUARD_S):
        while hub.followed.get(ALICE, jobs[1].prompt_id) is not None:  # nobody waits for this one
            await asyncio.sleep(0)
    assert not client.has_finished
    hub.is_down = False
    assert (await client.end())[-1] == ("status", {"status": "succeeded"})


async def test_a_client_that_leaves_is_told_nothing_more(hub: Hub) -> None:
    job = hub.job()
    client, other = hub.attach(job), hub.attach(job)
    client.connection_lost(None)
    hub.start(job)
    assert client.states() == [("queued", 1)]
    assert other.states() == [("queued", 1), ("running", None)]
    other.connection_lost(None)
    assert hub.followed.get(ALICE, job.prompt_id) is not None, "it runs"
    hub.end(job)
    waiting = hub.job()
    hub.attach(waiting).connection_lost(None)
    assert hub.followed.get(ALICE, waiting.prompt_id) is None


async def test_progress_that_nobody_asked_for_is_kept_unread(hub: Hub) -> None:
    job = hub.job(client_id="")
    hub.start(job)
    hub.hear("execution_start", job)
    hub.hear("progress_state", job, nodes={"1": {"state": "running", "value": 1, "max": 2}})
    followed = hub.followed.get(ALICE, job.prompt_id)
    assert followed is not None
    assert followed.tracker._frame is not None
    assert followed.plan is None
    hub.hearing.pictured(PICTURE, hub.registry.of(ALICE))
    assert followed._preview is None
    hub.hear("executed", job, node="1", output={"images": [{"filename": "a", "type": "output"}]})
    assert not followed.unmeasured


async def test_the_workflow_is_read_for_who_hears_how_far_it_is(hub: Hub) -> None:
    """And for nobody who waits for the end alone."""
    job = hub.job()
    hub.streams.attach(ALICE, job.prompt_id, JobEnd())
    followed = hub.followed.get(ALICE, job.prompt_id)
    assert followed is not None
    assert followed.planning is None
    hub.streams.attach(ALICE, job.prompt_id, Client())
    assert followed.planning is not None


async def test_an_event_without_a_job_is_of_the_one_that_runs(hub: Hub) -> None:
    job, waiting = hub.job(), hub.job()
    hub.start(job)
    hub.hear("executing", None, node="7")
    followed = hub.followed.get(ALICE, job.prompt_id)
    assert followed is not None
    assert followed.tracker.node == "7"
    hub.start(waiting)
    hub.hear("executing", None, node="8")
    assert followed.tracker.node == "7"


async def test_events_of_what_has_ended_are_passed_over(hub: Hub) -> None:
    job = hub.job(client_id="")
    hub.start(job)
    hub.end(job)
    hub.hear("execution_start", job)
    assert len(hub.followed) == 0


async def test_results_that_cannot_be_measured_wait_for_the_end(hub: Hub) -> None:
    """ComfyUI is away, and more is shown than is kept."""
    job = hub.job()
    client = hub.attach(job)
    hub.start(job)
    shown = {"images": [{"filename": "a.png", "subfolder": "tenants/alice", "type": "output"}]}
    hub.hear("executed", job, node="1", output=shown)
    hub.hear("executed", job, node="2", output=shown)
    hub.hear("executed", job, node="3", output={"x": ["y" * (9 * 1024**2)]})
    followed = hub.followed.get(ALICE, job.prompt_id)
    assert followed is not None
    async with asyncio.timeout(GUARD_S):
        while followed.unmeasured:
            await asyncio.sleep(0)
    assert [kind for kind, _ in client.told if kind == "output"] == []

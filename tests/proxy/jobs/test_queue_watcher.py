"""What the gate learns by watching ComfyUI: jobs that run, end or get lost, restarts, and a worker that is stuck."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from policy.principal import TenantId
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs import closing as closing_module
from proxy.jobs import queue_watcher as watcher_module
from proxy.jobs import standstill
from proxy.jobs.registry import Job, JobState, Outcome
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from tests.proxy.jobs.following import ALICE, Following, following, opened
from tests.proxy.upstreams import GUARD_S, serving

STATUS = '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}'


def item(number: Any, prompt_id: str, client_id: Any = "alice.tab") -> list[Any]:
    return [number, prompt_id, {}, {"client_id": client_id}, []]


def ended(
    prompt_id: str, client_id: Any = "alice.tab", kind: str = "execution_success", number: float = 1
) -> dict[str, Any]:
    messages = [["execution_start", {"timestamp": 1000}], [kind, {"timestamp": 3000}]]
    return {"prompt": item(number, prompt_id, client_id), "outputs": {}, "status": {"messages": messages}}


class Comfy:
    """An upstream whose queue and history the test writes down. broken: paths that answer 500."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.pending: list[Any] = []
        self.history: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.refused, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.has_jobs = True
        self.asked: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.ids: list[str] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ws":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            self.ids.append(request.query["clientId"])
            self.sockets.append(socket)
            await socket.receive()
            return socket
        self.asked.append(request.path)
        await self.may_answer.wait()
        if request.path in self.broken:
            self.refused.set()
            return web.Response(status=500)
        if request.path == "/queue":
            return web.json_response({"queue_running": self.running, "queue_pending": self.pending})
        if request.path == "/api/jobs" and self.has_jobs:
            rows = [{"id": each[1], "status": "in_progress", "priority": each[0]} for each in self.running]
            rows += [{"id": each[1], "status": "pending", "priority": each[0]} for each in self.pending]
            return web.json_response({"jobs": rows})
        if request.path == "/history":
            begin, count = int(request.query["offset"]), int(request.query["max_items"])
            return web.json_response(dict(list(self.history.items())[begin : begin + count]))
        if request.path.startswith("/history/"):
            prompt_id = request.path.rsplit("/", 1)[1]
            return web.json_response({key: entry for key, entry in self.history.items() if key == prompt_id})
        return web.Response(status=404)


class Watch(Following):
    """What follows jobs, and the ComfyUI that it watches."""

    def __init__(self, upstream: Upstream, database: Database, comfy: Comfy, gone_after_s: float | None) -> None:
        super().__init__(upstream, database, gone_after_s=gone_after_s)
        self.comfy, self.queue_watcher = comfy, self.watcher
        self.window = 100
        self.synced = asyncio.Event()
        self.connections = asyncio.Semaphore(0)
        self.watcher.on_synced, self.watcher.on_connected = self.synced.set, self._connected

    async def _connected(self, comfyui: str) -> None:
        self.connections.release()

    def job(self, prompt_id: str) -> Job:
        job = self.registry.job(prompt_id)
        assert job is not None
        return job

    async def announced(self) -> None:
        """ComfyUI says that something changed; waits until the queue watcher has looked."""
        self.synced.clear()
        await self.comfy.sockets[-1].send_str(STATUS)
        await self.synced.wait()


@asynccontextmanager
async def watching(
    comfy: Comfy | None = None, *, is_started: bool = False, gone_after_s: float | None = None
) -> AsyncIterator[Watch]:
    comfy = comfy or Comfy()
    async with serving(comfy) as url, opened() as database:
        upstream = Upstream(url, GUARD_S)
        watch = Watch(upstream, database, comfy, gone_after_s)
        try:
            async with asyncio.timeout(GUARD_S):
                if is_started:
                    watch.queue_watcher.start()
                    await watch.queue_watcher.is_settled.wait()
                yield watch
        finally:
            await watch.queue_watcher.stop()
            await upstream.stop()


@pytest.mark.parametrize("has_jobs", [True, False])
async def test_a_job_is_seen_from_claim_to_end(has_jobs: bool) -> None:
    async with watching(is_started=True) as watch:
        comfy = watch.comfy
        comfy.has_jobs = has_jobs
        number = (job := await watch.taken()).number
        prompt_id = job.prompt_id
        comfy.pending = [item(number, prompt_id)]
        await watch.announced()
        assert watch.told == []
        comfy.running, comfy.pending = comfy.pending, []
        await watch.announced()
        assert watch.told == [("started", prompt_id)]
        comfy.running, comfy.history = [], {prompt_id: ended(prompt_id, number=number)}
        await watch.announced()
        await watch.announced()
        assert watch.told == [("started", prompt_id), ("ended", prompt_id)]
        assert (job.outcome, job.gpu_s) == (Outcome.COMPLETED, 2.0)
        assert ((row := await watch.stored(prompt_id)).state, row.gpu_s) == ("succeeded", 2.0)


async def test_a_poke_is_as_good_as_an_event() -> None:
    async with watching(is_started=True) as watch:
        watch.synced.clear()
        watch.queue_watcher.request_sync()
        await watch.synced.wait()


async def test_other_events_are_not_asked_about() -> None:
    async with watching(is_started=True) as watch:
        asked = len(watch.comfy.asked)
        for text in ('{"type": "progress", "data": {}}', "nonsense", "[]"):
            await watch.comfy.sockets[-1].send_str(text)
        await watch.comfy.sockets[-1].send_bytes(b"\x00\x00\x00\x01")
        await watch.announced()
        assert watch.comfy.asked[asked:] == ["/api/jobs"]


async def test_takes_up_what_the_gate_did_not_know() -> None:
    comfy = Comfy()
    ids = [str(uuid.uuid4()) for _ in range(4)]
    comfy.running, comfy.pending = (
        [item(5, ids[0])],
        [item(7, ids[1]), item("odd", ids[2], "not from here"), [1], "x", [{}, 1, 2, 3]],
    )
    comfy.history = {ids[3]: ended(ids[3], "mallory.tab", "execution_error"), "broken": {"prompt": "x"}, "none": None}
    async with watching(comfy) as watch:
        await watch.queue_watcher.rebuild()
        assert (watch.job(ids[0]).state, watch.job(ids[0]).number) == (JobState.RUNNING, 5.0)
        assert (watch.job(ids[1]).state, watch.job(ids[1]).number) == (JobState.DISPATCHED, 7.0)
        assert (watch.job(ids[3]).tenant, watch.job(ids[3]).outcome) == ("mallory", Outcome.FAILED)
        assert watch.registry.job(ids[2]) is watch.registry.job("broken") is None
        assert [(await watch.stored(name)).state for name in (ids[1], ids[3])] == ["dispatched", "failed"]
        # What ended before the gate looked is history, not news.
        assert watch.told == [("started", ids[0])]


async def test_reads_all_of_a_long_history() -> None:
    comfy = Comfy()
    ids = [str(uuid.uuid4()) for _ in range(250)]
    comfy.history = {prompt_id: ended(prompt_id) for prompt_id in ids}
    async with watching(comfy) as watch:
        await watch.queue_watcher.rebuild()
        assert watch.registry.of(ALICE).finished() == ids
        assert comfy.asked.count("/history") == 3


async def test_a_job_that_was_taken_out_of_the_queue_leaves_no_trace() -> None:
    async with watching() as watch:
        job = await watch.taken()
        await watch.queue_watcher.sync()
        assert (watch.told, job.outcome) == ([("ended", job.prompt_id)], Outcome.LOST)
        assert watch.registry.job(job.prompt_id) is None
        assert (await watch.stored(job.prompt_id)).state == "canceled"


async def test_a_claim_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not on disk yet, and ComfyUI has not heard of it."""
    monkeypatch.setattr(watcher_module, "_CLAIM_LOST_S", -1.0)
    async with watching() as watch:
        job = watch.registry.claim(ALICE, None)
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([], JobState.CLAIMED)


async def test_a_job_on_its_way_is_given_time_before_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the queue yet is not gone."""
    async with watching() as watch:
        job = await watch.recorded()
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([], JobState.SENT)
        monkeypatch.setattr(watcher_module, "_CLAIM_LOST_S", -1.0)
        job.is_in_flight = True
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([], JobState.SENT), "it is being sent"
        job.is_in_flight = False
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([("waits", job.prompt_id)], JobState.WAITING)
        assert (job.attempts[-1]["reason"], job.lost_runs) == ("comfyui-unreachable", 0), "ComfyUI never had it"


async def test_a_job_whose_answer_never_came_is_found_in_the_queue() -> None:
    async with watching() as watch:
        job = await watch.recorded()
        watch.comfy.pending = [item(job.number, job.prompt_id)]
        await watch.queue_watcher.sync()
        assert job.state is JobState.DISPATCHED


async def test_not_knowing_the_queue_loses_no_job() -> None:
    async with watching() as watch:
        job = await watch.taken()
        watch.comfy.broken = {"/api/jobs", "/queue"}
        with pytest.raises(UpstreamUnavailable):
            await watch.queue_watcher.sync()
        assert watch.told == []
        assert job.state is JobState.DISPATCHED


async def test_jobs_of_another_gate_are_left_to_it() -> None:
    async with watching() as watch:
        job = await watch.taken()
        job.gate = "gate/2"
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([], JobState.DISPATCHED)


async def test_the_end_of_an_earlier_run_is_not_the_end_of_this_one() -> None:
    """A job that was tried again has another number in ComfyUI's queue."""
    async with watching() as watch:
        job = await watch.taken()
        watch.comfy.pending = [item(job.number, job.prompt_id)]
        watch.comfy.history = {job.prompt_id: ended(job.prompt_id, number=job.number - 1)}
        watch.queue_watcher.close_soon(job.prompt_id)
        await watch.queue_watcher.rebuild()
        assert (watch.told, job.state) == ([], JobState.DISPATCHED)


async def test_an_end_that_is_being_read_is_read_once() -> None:
    """By who heard of it; the comparison with the queue leaves it to that."""
    async with watching() as watch:
        job = await watch.taken()
        job.closed = asyncio.Event()
        watch.comfy.history = {job.prompt_id: ended(job.prompt_id, number=job.number)}
        watch.queue_watcher.close_soon(job.prompt_id)
        await watch.queue_watcher.sync()
        await job.closed.wait()
        await watch.queue_watcher.sync()
        asked = [path for path in watch.comfy.asked if path.startswith("/history/")]
        assert (asked, watch.told) == ([f"/history/{job.prompt_id}"], [("ended", job.prompt_id)])


async def test_an_end_that_does_not_come_is_looked_for_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_module, "_HISTORY_DELAYS_S", (0.0,))
    async with watching(is_started=True) as watch:
        job = await watch.taken()
        job.closed = asyncio.Event()
        watch.queue_watcher.close_soon(job.prompt_id)
        await job.closed.wait()
        assert job.outcome is Outcome.LOST


async def test_foreign_jobs_are_looked_at_once() -> None:
    """/queue carries every graph: it is read again only for ids that nobody has seen."""
    comfy = Comfy()
    comfy.pending = [item(1, str(uuid.uuid4()), "somebody")]
    async with watching(comfy) as watch:
        for _ in range(3):
            await watch.queue_watcher.sync()
        assert comfy.asked == ["/api/jobs", "/queue", "/api/jobs", "/api/jobs"]


async def test_knows_whether_an_id_is_taken_whoever_has_it() -> None:
    comfy = Comfy()
    running, waiting, past = (str(uuid.uuid4()) for _ in range(3))
    comfy.running, comfy.pending = [item(1, running, "somebody")], [item(2, waiting, "somebody")]
    comfy.history = {past: ended(past, "somebody")}
    async with watching(comfy) as watch:
        own = watch.registry.claim(ALICE, None).prompt_id
        for prompt_id in (running, waiting, past, own):
            assert await watch.queue_watcher.has_job(prompt_id)
        assert not await watch.queue_watcher.has_job(str(uuid.uuid4()))
        comfy.broken = {"/api/jobs", "/queue"}
        with pytest.raises(UpstreamUnavailable):
            await watch.queue_watcher.has_job(str(uuid.uuid4()))


async def test_the_same_is_asked_whoever_has_an_id() -> None:
    """A known id leads to no entry, whose size would show in the time of the answer."""
    async with watching() as watch:
        neighbours, free = watch.registry.claim(TenantId("mallory"), None).prompt_id, str(uuid.uuid4())
        asked = []
        for prompt_id in (neighbours, free):
            watch.comfy.asked.clear()
            await watch.queue_watcher.has_job(prompt_id)
            asked.append([path.replace(free, "absent") for path in watch.comfy.asked])
        assert asked[0] == asked[1] == ["/history/absent", "/api/jobs"]


async def test_jobs_that_wait_while_none_runs_show_a_stuck_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "STUCK_AFTER_S", -1.0)
    async with watching() as watch:
        is_stuck = [watch.queue_watcher.is_worker_stuck]
        job = await watch.taken()
        watch.comfy.pending = [item(job.number, job.prompt_id)]
        await watch.queue_watcher.sync()
        is_stuck.append(watch.queue_watcher.is_worker_stuck)
        watch.comfy.running, watch.comfy.pending = watch.comfy.pending, []
        await watch.queue_watcher.sync()
        assert [*is_stuck, watch.queue_watcher.is_worker_stuck] == [False, True, False]


async def test_connects_again_with_a_new_id_and_rebuilds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher_module, "_RECONNECT_S", (0.0,))
    async with watching(is_started=True) as watch:
        await watch.connections.acquire()
        job = await watch.taken()
        await watch.comfy.sockets[0].close()
        await watch.connections.acquire()
        await watch.queue_watcher.is_settled.wait()
        assert watch.queue_watcher.is_connected
        assert (watch.told, job.state) == ([("waits", job.prompt_id)], JobState.WAITING)
        first, second = watch.comfy.ids
        assert first != second
    assert caplog.text.count("the connection to ComfyUI ended") == 1, "not when the gate stops"


async def test_says_once_that_comfyui_is_down(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher_module, "_RECONNECT_S", (0.0,))
    enough, tries = asyncio.Event(), 0

    class Down(Upstream):
        async def connect(self, *_: Any, **__: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries > 5:
                enough.set()
            raise UpstreamUnavailable

    async with following(Down("http://127.0.0.1:9", 1.0)) as parts:
        parts.watcher.start()
        await enough.wait()
        assert not parts.watcher.is_connected
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not answer at http://127.0.0.1:9" in caplog.text


async def test_looks_now_and_then_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher_module, "_POLL_IDLE_S", 0.01)
    monkeypatch.setattr(watcher_module, "_POLL_BUSY_S", 0.01)
    async with watching(is_started=True) as watch:
        for _ in range(2):
            watch.synced.clear()
            await watch.synced.wait()
        watch.comfy.broken = {"/api/jobs", "/queue"}
        await watch.comfy.refused.wait()
        watch.comfy.broken = set()
        watch.synced.clear()
        await watch.synced.wait()

"""How long one of several ComfyUIs has been away: only what cannot be reached is."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from policy.principal import Principal
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs import absence as absence_module
from proxy.jobs import queue_reader
from proxy.jobs import queue_watcher as watcher_module
from proxy.jobs.idempotency_db import Kept, KeptSubmissions, Place
from proxy.jobs.job import JobState
from proxy.jobs.job_finder import JobFinder
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.persistence.operations import DatabaseUnavailable
from tests.proxy.jobs.following import ALICE
from tests.proxy.jobs.test_queue_watcher import Watch, item, watching

GONE_AFTER_S = 5.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for without a pause, and a second has gone each time that somebody looks at the clock."""
    monkeypatch.setattr(watcher_module, "_RECONNECT_S", (0.0,))
    seconds = itertools.count()
    monkeypatch.setattr(absence_module, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


async def _runs_a_job(watch: Watch) -> str:
    job = await watch.taken()
    watch.comfy.running = [item(job.number, job.prompt_id)]
    await watch.queue_watcher.sync()
    assert job.state is JobState.RUNNING
    return job.prompt_id


async def _is_connected_often(watch: Watch) -> None:
    for _ in range(4 * int(GONE_AFTER_S)):
        await watch.connections.acquire()


async def test_one_that_does_not_tell_what_it_can_run_goes_on_with_what_it_has() -> None:
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        prompt_id = await _runs_a_job(watch)

        async def fail(comfyui: str) -> None:
            watch.connections.release()
            raise UpstreamUnavailable("no catalogue")

        watch.queue_watcher.on_connected = fail
        watch.queue_watcher.start()
        await _is_connected_often(watch)
        assert watch.told == [("started", prompt_id)]


async def test_while_the_database_is_away_no_comfyui_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        prompt_id = await _runs_a_job(watch)

        async def fail(begun_s: float, has: set[str]) -> None:
            watch.connections.release()
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(watch.records.doubts, "drop", fail)
        watch.queue_watcher.start()
        await _is_connected_often(watch)
        assert watch.told == [("started", prompt_id)]


async def test_what_one_had_that_cannot_be_reached_goes_on_with_others() -> None:
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        prompt_id = await _runs_a_job(watch)
        job = watch.job(prompt_id)
        watch.comfy.broken = {"/api/jobs", "/queue"}
        watch.queue_watcher.start()
        while job.state is JobState.RUNNING:
            watch.comfy.refused.clear()
            await watch.comfy.refused.wait()
        assert watch.told == [("started", prompt_id), ("waits", prompt_id)]


@pytest.mark.parametrize("has_key", [True, False])
async def test_a_job_of_which_only_one_that_is_gone_knows_goes_on_where_its_client_may_ask_after_it(
    has_key: bool,
) -> None:
    """Its submission got no answer."""
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        job = await watch.recorded()
        if has_key:
            kept = Kept(b"fingerprint", job.prompt_id, watch.now_s)
            await KeptSubmissions(watch.database).put(Place(ALICE, b"key"), kept, watch.now_s)
        watch.registry.release(job.prompt_id)
        await watch.records.doubts.note(job.prompt_id)
        finder = JobFinder(watch.upstream, watch.registry, watch.records, watch.queue_watcher)
        with pytest.raises(UpstreamUnavailable):
            await finder.has(Principal("key", ALICE), job.prompt_id)
        watch.comfy.broken = {"/api/jobs", "/queue"}
        watch.queue_watcher.start()
        while not watch.queue_watcher.absence.is_given_up:
            watch.comfy.refused.clear()
            await watch.comfy.refused.wait()
        assert await finder.has(Principal("key", ALICE), job.prompt_id) is has_key
        assert watch.told == [("waits", job.prompt_id)] * has_key
        assert (await watch.stored(job.prompt_id)).state == ("waiting" if has_key else "dispatched")
        watch.comfy.broken = set()
        await watch.queue_watcher.is_settled.wait()
        assert not watch.queue_watcher.absence.is_given_up


async def test_what_has_failed_since_it_went_away_is_stopped_when_it_is_back() -> None:
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        watch.retries_interrupted = False
        prompt_id = await _runs_a_job(watch)
        await watch.queue_watcher.closing.give_up()
        assert watch.told == [("started", prompt_id), ("ended", prompt_id)]
        assert "/interrupt" not in watch.comfy.asked
        await watch.queue_watcher.sync()
        assert "/interrupt" in watch.comfy.asked


async def test_one_that_says_nothing_is_given_nothing_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open: a process that was stopped, or a machine without memory."""
    async with watching(is_started=True, gone_after_s=GONE_AFTER_S) as watch:
        watchers = QueueWatchers({"default": watch.queue_watcher}, watch.registry)
        assert watchers.is_well("default")
        watch.comfy.may_answer.clear()
        watch.comfy.asked.clear()
        reading = asyncio.ensure_future(watch.queue_watcher.sync())
        while not watch.comfy.asked:
            await asyncio.sleep(0)
        assert watchers.is_well("default"), "it may be busy"
        with monkeypatch.context() as later:
            later.setattr(queue_reader, "SILENT_AFTER_S", -1.0)
            assert (watchers.is_well("default"), watch.queue_watcher.is_connected) == (False, True)
        watch.comfy.may_answer.set()
        await reading
        assert watchers.is_well("default")


async def test_one_that_has_not_answered_in_time_has_been_silent_since_it_was_asked_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_reader, "SYNC_LIMIT_S", 0.01)
    async with watching(gone_after_s=GONE_AFTER_S) as watch:
        watch.comfy.may_answer.clear()
        with pytest.raises(UpstreamTimeout):
            await watch.queue_watcher.sync()
        monkeypatch.setattr(queue_reader, "SILENT_AFTER_S", 0.0)
        queue = watch.queue_watcher.queue
        told = [queue.is_silent]
        queue.connected()  # it was started anew
        told.append(queue.is_silent)
        watch.comfy.may_answer.set()
        watch.comfy.broken = {"/api/jobs", "/queue"}
        with pytest.raises(UpstreamUnavailable):  # which says something
            await watch.queue_watcher.sync()
        assert [*told, queue.is_silent] == [True, False, False]

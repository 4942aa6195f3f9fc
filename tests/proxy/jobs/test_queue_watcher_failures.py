"""What the queue watcher cannot read: said once, shown, and in nobody's way."""

from __future__ import annotations

import pytest

from proxy.jobs import queue_watcher as watcher_module
from proxy.jobs.history_reader import MAX_TRIES
from proxy.jobs.registry import JobState, Outcome
from tests.proxy.jobs.test_queue_watcher import Comfy, ended, item, watching


async def test_a_jobs_route_that_failed_once_is_asked_again() -> None:
    async with watching() as watch:
        watch.comfy.broken = {"/api/jobs"}
        await watch.queue_watcher.sync()
        watch.comfy.broken = set()
        watch.comfy.asked.clear()
        await watch.queue_watcher.sync()
        assert watch.comfy.asked == ["/api/jobs"]


async def test_a_jobs_route_that_is_not_there_is_looked_for_after_a_reconnection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher_module, "_RECONNECT_S", (0.0,))
    comfy = Comfy()
    comfy.has_jobs = False
    async with watching(comfy, is_started=True) as watch:
        await watch.connections.acquire()
        await watch.announced()
        comfy.has_jobs = True
        comfy.asked.clear()
        await watch.announced()
        assert comfy.asked == ["/queue"]
        comfy.asked.clear()
        await comfy.sockets[0].close()
        await watch.connections.acquire()
        assert "/api/jobs" in comfy.asked


async def test_a_job_whose_end_cannot_be_read_is_not_lost_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with watching() as watch:
        jobs = [await watch.taken() for _ in range(3)]
        ids = [job.prompt_id for job in jobs]
        watch.comfy.history = {job.prompt_id: ended(job.prompt_id, number=job.number) for job in jobs}
        watch.comfy.broken = {f"/history/{ids[1]}"}
        for _ in range(MAX_TRIES - 1):
            await watch.queue_watcher.sync()
            assert {each for _, each in watch.told} == {ids[0], ids[2]}
            assert watch.job(ids[1]).state is JobState.DISPATCHED
        assert caplog.text.count("cannot be read") == 1
        watch.comfy.broken = set()
        await watch.queue_watcher.sync()
        assert watch.job(ids[1]).outcome is Outcome.COMPLETED


async def test_a_job_whose_end_can_never_be_read_frees_its_slot() -> None:
    async with watching() as watch:
        job = await watch.taken()
        watch.comfy.broken = {f"/history/{job.prompt_id}"}
        for _ in range(MAX_TRIES):
            assert watch.told == []
            await watch.queue_watcher.sync()
        assert (watch.told, job.outcome) == ([("ended", job.prompt_id)], Outcome.LOST)


async def test_a_queue_that_cannot_be_read_is_said_once_and_shows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(is_started=True) as watch:
        is_stale = [watch.queue_watcher.is_stale]
        watch.comfy.broken = {"/api/jobs", "/queue"}
        for _ in range(3):
            watch.comfy.refused.clear()
            watch.queue_watcher.request_sync()
            await watch.comfy.refused.wait()
        monkeypatch.setattr(watcher_module, "STALE_AFTER_S", 0.0)
        assert [*is_stale, watch.queue_watcher.is_stale] == [False, True]
        assert watch.queue_watcher.last_sync_age_s > 0.0
        watch.comfy.broken = set()
        age_s = watch.queue_watcher.last_sync_age_s
        await watch.announced()
        assert watch.queue_watcher.last_sync_age_s < age_s
    assert caplog.text.count("the queue of ComfyUI cannot be read (") == 1
    assert "cannot be read ()" not in caplog.text


async def test_a_job_in_doubt_that_comfyui_has_stays_when_the_connection_is_made_anew() -> None:
    """Another gate has doubts of it, of which this one has not heard yet: it knows the job, and takes it for one of the other's."""
    async with watching() as watch:
        job = await watch.taken()
        job.gate = "gate/2"
        await watch.records.doubts.note(job.prompt_id)
        watch.comfy.pending = [item(job.number, job.prompt_id)]
        watch.now_s = 0.0
        await watch.queue_watcher.rebuild()
        assert await watch.row(job.prompt_id) is not None
        watch.comfy.pending = []
        await watch.queue_watcher.rebuild()
        assert await watch.row(job.prompt_id) is None

"""Which of the jobs that ComfyUI has lost ran, as far as anybody knows."""

from __future__ import annotations

import asyncio

import pytest

from proxy.jobs.job import JobState
from tests.proxy.jobs.test_endings import out_of_memory
from tests.proxy.jobs.test_queue_watcher import watching


@pytest.mark.parametrize("is_current", [True, False])
async def test_what_stood_behind_a_job_when_comfyui_went_away_is_not_surely_one_that_ran(is_current: bool) -> None:
    """It was just being sent, or it is not known what ComfyUI did last."""
    async with watching() as watch:
        watch.queue_watcher._was_current = is_current
        ran, next_one, sent = await watch.running(), await watch.taken(), await watch.recorded()
        sent.is_in_flight = False
        watch.registry.connections.made("default")
        await watch.queue_watcher.sync()
        reasons = [each.attempts[-1]["reason"] for each in (ran, next_one, sent)]
        middle = "comfyui-restarted" if is_current else "comfyui-gone-perhaps"
        assert reasons == ["comfyui-gone", middle, "comfyui-gone-perhaps"]
        assert [each.lost_runs for each in (ran, next_one, sent)] == [1, 0, 0]


@pytest.mark.parametrize(("has_ended", "reason"), [(False, "comfyui-restarted"), (True, "comfyui-gone")])
async def test_what_stood_behind_another_gates_job_has_run_only_if_that_was_seen_to_end(
    has_ended: bool, reason: str
) -> None:
    async with watching() as watch:
        watch.queue_watcher._was_current = True
        other, job = await watch.running(), await watch.taken()
        other.gate = "gate/2"
        watch.queue_watcher.closing.listed([other.prompt_id, job.prompt_id])
        if has_ended:
            watch.registry.end(other)
        watch.registry.connections.made("default")
        await watch.queue_watcher.sync()
        assert job.attempts[-1]["reason"] == reason


@pytest.mark.parametrize(("gives_up", "reason"), [(True, "comfyui-gone-perhaps"), (False, "comfyui-gone")])
async def test_what_has_passed_a_job_that_is_on_its_way_may_have_begun(gives_up: bool, reason: str) -> None:
    async with watching() as watch:
        watch.queue_watcher._was_current = True
        on_its_way, job = await watch.recorded(), await watch.taken()
        assert on_its_way.is_in_flight
        if gives_up:
            await watch.queue_watcher.closing.give_up()
        else:
            watch.registry.connections.made("default")
            await watch.queue_watcher.sync()
        assert job.attempts[-1]["reason"] == reason
        assert not on_its_way.was_tried


async def test_what_stood_behind_a_job_that_waits_again_is_not_surely_one_that_ran() -> None:
    """The gate of the first is gone, and its lease ended first: when the second is taken over nothing is left before it."""
    async with watching() as watch:
        first, job = await watch.taken(), await watch.taken()
        watch.registry.connections.made("default")
        job.gate = "gate/2"
        watch.now_s += 1.0
        await watch.queue_watcher.sync()
        assert (first.state, first.lost_runs) == (JobState.WAITING, 1)
        job.gate = watch.records.gate
        await watch.queue_watcher.sync()
        assert (job.state, job.lost_runs) == (JobState.WAITING, 0)


async def test_a_job_that_another_gate_has_given_anew_while_comfyui_was_asked_is_left_to_it() -> None:
    """It was taken over there, since this gate's lease had ended, and ComfyUI has it again."""
    async with watching() as watch:
        job = await watch.taken()
        watch.registry.connections.made("default")
        watch.comfy.may_answer.clear()
        closing = asyncio.ensure_future(watch.queue_watcher.closing.close_missing({job.prompt_id}, was_current=True))
        while not watch.comfy.asked:
            await asyncio.sleep(0)
        await watch.records.give_back(job, "comfyui-restarted")
        [given] = await watch.records.give()
        job.gate = "gate/2"
        watch.registry.dispatched(job.prompt_id)
        watch.comfy.may_answer.set()
        await closing
        assert ((await watch.stored(job.prompt_id)).state, watch.told) == ("dispatched", [])
        assert given.job.number == job.number


async def test_the_end_of_a_run_is_told_once_however_many_have_read_it() -> None:
    """Its client was told of the end and asks for the history, while the queue watcher misses it in the queue: by then it may wait for its second run."""
    async with watching() as watch:
        job = await watch.running()
        closing = watch.queue_watcher.closing
        watch.comfy.history = {job.prompt_id: out_of_memory(job)}
        watch.comfy.may_answer.clear()
        reading = [asyncio.ensure_future(closing.close_missing({job.prompt_id}, was_current=True)) for _ in range(2)]
        while len(watch.comfy.asked) < 2:
            await asyncio.sleep(0)
        watch.comfy.may_answer.set()
        await asyncio.gather(*reading)
        await closing.close_missing({job.prompt_id}, was_current=True)
        assert (job.state, [each["reason"] for each in job.attempts]) == (JobState.WAITING, ["out-of-memory"])

"""Jobs that stand in ComfyUI's queue only to be judged (proxy/jobs/trial.py), as the queue watcher sees them."""

from __future__ import annotations

import pytest

from policy.call import Place
from policy.rules.prompt import LAST_PLACE
from proxy.jobs.registry import JobState
from tests.proxy.jobs.test_queue_watcher import item, watching


@pytest.mark.parametrize("has_jobs", [True, False])
async def test_a_job_that_is_tried_has_not_been_given(*, has_jobs: bool) -> None:
    """ComfyUI's queue may have been read while it was tried, and be looked through when it is about to be sent for good."""
    async with watching() as watch:
        watch.comfy.has_jobs = has_jobs
        job = await watch.recorded()
        watch.comfy.pending = [item(LAST_PLACE + 3, job.prompt_id)]
        await watch.queue_watcher.sync()
        assert job.state is JobState.SENT
        watch.comfy.pending = []
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([], JobState.SENT), (
            "it is not taken for one that ComfyUI had and has no more"
        )


async def test_a_tried_job_that_came_to_its_turn_runs() -> None:
    async with watching() as watch:
        job = await watch.recorded()
        watch.comfy.running = [item(LAST_PLACE + 3, job.prompt_id)]
        await watch.queue_watcher.sync()
        assert (watch.told, job.state) == ([("started", job.prompt_id)], JobState.RUNNING)


@pytest.mark.parametrize("gone_after_s", [None, 30.0], ids=["one", "several"])
async def test_a_job_that_was_tried_and_waits_goes_on_waiting(gone_after_s: float | None) -> None:
    """The queue was read while it was tried, and its answer came when the job was on disk."""
    async with watching(gone_after_s=gone_after_s) as watch:
        job = await watch.recorded(place=Place.WAITING)
        watch.comfy.pending = [item(LAST_PLACE + 3, job.prompt_id)]
        await watch.queue_watcher.sync()
        assert (job.state, watch.told) == (JobState.WAITING, [])
        assert "/interrupt" not in watch.comfy.asked, "it may be given in this moment"

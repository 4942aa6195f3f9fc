"""How jobs end, by the class of what went wrong: which are tried again, how often, and what their clients are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from policy.call import Place, UpstreamReply
from policy.documents import Kind
from proxy.jobs.job import Job, JobState, Outcome
from proxy.jobs.job_rows import Submitted
from proxy.jobs.store_reading import submitted_of
from proxy.upstream.client import Upstream
from tests.proxy.jobs.asked import AskedComfy
from tests.proxy.jobs.following import ALICE, Following, following
from tests.proxy.upstreams import GUARD_S, serving


@pytest.fixture
def comfy() -> AskedComfy:
    return AskedComfy()


@pytest.fixture
async def parts(comfy: AskedComfy) -> AsyncIterator[Following]:
    async with serving(comfy) as url:
        upstream = Upstream(url, GUARD_S)
        async with following(upstream) as parts:
            yield parts
        await upstream.stop()


def entry(job: Job, kind: str = "execution_success", **more: Any) -> dict[str, Any]:
    begun = ["execution_start", {"timestamp": 1_000_000, "prompt_id": job.prompt_id}]
    last = [kind, {"timestamp": 1_004_000, "prompt_id": job.prompt_id, **more}]
    status = {"status_str": "success" if kind == "execution_success" else "error", "messages": [begun, last]}
    return {"prompt": [job.number, job.prompt_id, {}, {"client_id": "alice.tab"}, []], "outputs": {}, "status": status}


def out_of_memory(job: Job) -> dict[str, Any]:
    return entry(job, "execution_error", node_type="KSampler", exception_type="torch.OutOfMemoryError")


async def given_again(parts: Following, job: Job) -> None:
    """As the dispatcher does, and ComfyUI runs it."""
    [(row, *_)] = await parts.records.give()
    assert row.prompt_id == job.prompt_id
    parts.registry.dispatched(job.prompt_id)
    parts.registry.start(job)


@pytest.mark.parametrize(
    ("kind", "more", "state", "outcome", "error"),
    [
        ("execution_success", {}, "succeeded", Outcome.COMPLETED, ""),
        ("execution_error", {"node_type": "KSampler"}, "failed", Outcome.FAILED, "node"),
        ("execution_interrupted", {}, "canceled", Outcome.CANCELLED, ""),
    ],
)
async def test_what_comfyui_tells_is_the_end(
    parts: Following, kind: str, more: dict[str, Any], state: str, outcome: Outcome, error: str
) -> None:
    job = await parts.running()
    parts.told.clear()
    await parts.endings.told(job, entry(job, kind, **more))
    assert (parts.told, parts.outcomes) == ([("ended", job.prompt_id)], [(job.prompt_id, outcome)])
    row = await parts.stored(job.prompt_id)
    assert (row.state, row.error, row.failing_class, row.gpu_s) == (state, error, more.get("node_type", ""), 4.0)
    assert [each["reason"] for each in row.told_attempts()] == [error or state]
    read = await parts.documents.read(ALICE, Kind.ENTRY, (job.prompt_id,))
    assert orjson.loads(read.documents[job.prompt_id].numbered(1))["prompt"][3]["client_id"] == "tab"


async def test_a_job_ends_once(parts: Following) -> None:
    job = await parts.running()
    for _ in range(2):
        await parts.endings.told(job, entry(job))
    await parts.endings.lost(job, has_run=True)
    await parts.endings.taken_out(job, was_watched=True)
    assert parts.told.count(("ended", job.prompt_id)) == 1
    assert ("waits", job.prompt_id) not in parts.told
    assert (await parts.stored(job.prompt_id)).state == "succeeded"


async def test_a_job_that_ran_out_of_memory_is_tried_once_more_with_memory_free(
    parts: Following, comfy: AskedComfy
) -> None:
    job = await parts.running()
    parts.told.clear()
    await parts.endings.told(job, out_of_memory(job))
    assert comfy.asked == [("POST /free", {"unload_models": True, "free_memory": True})]
    assert (parts.told, job.state) == ([("waits", job.prompt_id)], JobState.WAITING)
    assert [each["reason"] for each in (await parts.stored(job.prompt_id)).told_attempts()] == ["out-of-memory"]
    await given_again(parts, job)
    await parts.endings.told(job, out_of_memory(job))
    row = await parts.stored(job.prompt_id)
    assert (row.state, row.error, row.failing_class) == ("failed", "out-of-memory", "KSampler")
    assert [each["reason"] for each in row.told_attempts()] == ["out-of-memory", "out-of-memory"]
    assert len(comfy.asked) == 1


async def test_a_comfyui_that_frees_nothing_keeps_no_job_from_its_second_try(
    parts: Following, comfy: AskedComfy
) -> None:
    comfy.status = 500
    job = await parts.running()
    await parts.endings.told(job, out_of_memory(job))
    assert job.state is JobState.WAITING


async def test_a_job_during_which_comfyui_went_away_is_tried_once_more(parts: Following) -> None:
    job = await parts.running()
    await parts.endings.lost(job, has_run=True)
    assert job.state is JobState.WAITING
    await given_again(parts, job)
    parts.told.clear()
    await parts.endings.lost(job, has_run=True)
    row = await parts.stored(job.prompt_id)
    assert (row.state, row.error, len(row.told_attempts())) == ("failed", "comfyui-gone", 2)
    assert (parts.told, parts.outcomes) == ([("ended", job.prompt_id)], [(job.prompt_id, Outcome.FAILED)])
    [told] = parts.entries
    kind, data = told["status"]["messages"][-1]
    assert (kind, data["exception_type"]) == ("execution_error", "ComfyUIWentAway")
    assert "twice" in data["exception_message"]
    read = await parts.documents.read(ALICE, Kind.ENTRY, (job.prompt_id,))
    shown = orjson.loads(read.documents[job.prompt_id].numbered(1))
    assert (shown["status"]["status_str"], list(shown["prompt"][2])) == ("error", ["1", "2"])


async def test_a_job_of_which_it_is_not_sure_that_it_ran_has_a_try_more(parts: Following) -> None:
    job = await parts.running()
    for is_sure in (False, True):
        await parts.endings.lost(job, has_run=True, is_sure=is_sure)
        assert job.state is JobState.WAITING
        await given_again(parts, job)
    await parts.endings.lost(job, has_run=True)
    row = await parts.stored(job.prompt_id)
    reasons = [each["reason"] for each in row.told_attempts()]
    assert (row.state, reasons) == ("failed", ["comfyui-gone-perhaps", "comfyui-gone", "comfyui-gone"])


async def test_without_retries_what_may_have_run_has_failed(parts: Following) -> None:
    parts.retries_interrupted = False
    job = await parts.running()
    await parts.endings.lost(job, has_run=True, is_sure=False)
    assert (await parts.stored(job.prompt_id)).state == "failed"


async def test_without_retries_it_has_failed_at_once(parts: Following) -> None:
    parts.retries_interrupted = False
    job = await parts.running()
    await parts.endings.lost(job, has_run=True)
    assert ((await parts.stored(job.prompt_id)).state, parts.outcomes) == ("failed", [(job.prompt_id, Outcome.FAILED)])


async def test_what_only_waited_at_comfyui_is_given_again_however_often(parts: Following) -> None:
    parts.retries_interrupted = False
    job = await parts.taken()
    for _ in range(4):
        await parts.endings.lost(job, has_run=False)
        assert job.state is JobState.WAITING
        await given_again(parts, job)
    assert job.lost_runs == 0


async def test_a_job_that_ran_too_long_has_failed_with_that_reason(parts: Following) -> None:
    job = await parts.running()
    job.stopped_after_s = 60
    await parts.endings.told(job, entry(job, "execution_interrupted"))
    row = await parts.stored(job.prompt_id)
    assert (row.state, row.error, job.outcome) == ("failed", "job-seconds", Outcome.FAILED)
    read = await parts.documents.read(ALICE, Kind.ENTRY, (job.prompt_id,))
    assert "60 s" in str(orjson.loads(read.documents[job.prompt_id].numbered(1))["status"]["messages"])


async def test_what_comfyui_takes_no_more_has_failed_and_is_not_tried_again(parts: Following) -> None:
    job = await parts.recorded()
    await parts.endings.refused(job, UpstreamReply(400, {"error": {"message": "no such model"}}))
    row = await parts.stored(job.prompt_id)
    assert (row.state, row.error, parts.outcomes) == ("failed", "validation", [(job.prompt_id, Outcome.FAILED)])
    assert "no such model" in str(parts.entries)


async def test_what_is_kept_to_be_tried_again_has_no_keys_of_paid_services(parts: Following) -> None:
    job = parts.registry.claim(ALICE, None, client_id="tab", cost_s=10.0)
    body = b'{"prompt":{},"extra_data":{"api_key_comfy_org":"secret"}}'
    await parts.records.record(job, Submitted(body, b"[]", b"[]"), Place.NEXT)
    parts.registry.dispatched(job.prompt_id)
    await parts.endings.told(job, entry(job, "execution_error", node_type="KSampler"))
    kept = await parts.database.read(submitted_of, job.prompt_id)
    assert kept.body == b'{"prompt":{},"extra_data":{}}'


async def test_what_was_taken_out_of_the_queue_leaves_no_trace(parts: Following) -> None:
    job = await parts.taken()
    await parts.endings.taken_out(job, was_watched=True)
    assert parts.registry.job(job.prompt_id) is None
    assert (await parts.stored(job.prompt_id)).size == 0
    assert not (await parts.documents.read(ALICE, Kind.ITEM, (job.prompt_id,))).documents

"""Whoever wants the end of a job that ComfyUI has is heard in the end, and nobody else's job with him."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from policy.call import UpstreamCall, UpstreamReply
from policy.principal import TenantId
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs import results
from proxy.jobs.job import Job, JobState
from proxy.jobs.job_rows import Ended, JobRow
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.results import JobResults
from tests.contract.driver import previewing
from tests.matrix.world import open_world
from tests.proxy.upstreams import GUARD_S

ALICE = TenantId("alice")
Answer = Callable[[], UpstreamReply]


def fails(error: type[Exception]) -> Answer:
    def answer() -> UpstreamReply:
        raise error

    return answer


def says(status: int) -> Answer:
    return lambda: UpstreamReply(status, None)


class Fake:
    """A ComfyUI that gives these answers, then 200. asked: the paths."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[str] = []
        self.has_asked = asyncio.Event()
        self._answers = list(answers)

    async def ask(self, call: UpstreamCall, *, time_limit_s: float) -> UpstreamReply:
        self.asked.append(call.target)
        self.has_asked.set()
        return (self._answers.pop(0) if self._answers else says(200))()


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_CANCEL_AGAIN_S", (0.0,))


class House:
    def __init__(self, comfyui: Fake) -> None:
        self.registry = JobRegistry()
        nothing = cast(Any, None)
        self.results = JobResults(
            cast(Any, comfyui), self.registry, nothing, nothing, nothing, lambda prompt_id: None, lambda job: None
        )

    def running(self) -> Job:
        job = self.registry.claim(ALICE, None)
        self.registry.start(job)
        return job

    async def is_done(self) -> None:
        async with asyncio.timeout(GUARD_S):
            while self.results._canceling:
                await asyncio.sleep(0)


@pytest.fixture
async def stopped() -> AsyncIterator[list[House]]:
    houses: list[House] = []
    yield houses
    for house in houses:
        await house.results.stop()


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([], ["/queue", "/interrupt"]),
        ([fails(UpstreamUnavailable)], ["/queue", "/queue", "/interrupt"]),
        ([says(200), fails(UpstreamTimeout)], ["/queue", "/interrupt"] * 2),
        ([says(503)], ["/queue", "/interrupt"] * 2),
        ([says(200), says(400)], ["/queue", "/interrupt"]),
    ],
)
async def test_comfyui_is_asked_until_it_has_heard(
    stopped: list[House], answers: list[Answer], asked: list[str]
) -> None:
    comfyui = Fake(*answers)
    stopped.append(house := House(comfyui))
    house.results.cancel(house.running())
    await house.is_done()
    assert comfyui.asked == asked


@pytest.mark.parametrize("is_gone", [False, True])
async def test_nothing_is_asked_of_a_job_that_has_ended(stopped: list[House], is_gone: bool) -> None:
    """Nor of another one that has its id by now."""
    comfyui = Fake(*[fails(UpstreamUnavailable)] * 1000)
    stopped.append(house := House(comfyui))
    job = house.running()
    house.results.cancel(job)
    await comfyui.has_asked.wait()
    if is_gone:
        house.registry.release(job.prompt_id)
        house.registry.start(house.registry.claim(ALICE, job.prompt_id))
    else:
        job.state = JobState.ENDED
    count = len(comfyui.asked)
    await house.is_done()
    assert len(comfyui.asked) <= count + 1


async def test_who_asks_often_is_asked_for_once(stopped: list[House]) -> None:
    comfyui = Fake()
    stopped.append(house := House(comfyui))
    job = house.running()
    for _ in range(100):
        house.results.cancel(job)
    await house.is_done()
    assert comfyui.asked == ["/queue", "/interrupt"]
    house.results.cancel(job)
    await house.is_done()
    assert len(comfyui.asked) == 4


async def test_whoever_has_read_how_a_job_ended_is_not_told_then_that_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is committed, where it can be read, and the thread that wrote it has still to say so to the gate: on a slow disk that is a while."""
    is_committed, may_be_told = asyncio.Event(), asyncio.Event()
    finish = JobRecords.finish

    async def told_late(self: JobRecords, job: Job, ended: Ended) -> JobRow | None:
        row = await finish(self, job, ended)
        is_committed.set()
        await may_be_told.wait()
        return row

    monkeypatch.setattr(JobRecords, "finish", told_late)
    async with asyncio.timeout(GUARD_S), open_world(tmp_path) as world:
        alice, registry = world.alice, world.running.gate.dependencies.registry

        async def ask() -> tuple[Any, ...]:
            paths = (f"/history/{prompt_id}", "/history", f"/api/jobs/{prompt_id}", "/api/jobs", "/queue")
            return tuple([(await alice.get(path)).json() for path in paths])

        prompt_id = await alice.queue(previewing(1))
        job = registry.job(prompt_id)
        assert job is not None
        await is_committed.wait()
        asking = asyncio.create_task(ask())
        while job.closed is None and not asking.done():
            await asyncio.sleep(0)
        may_be_told.set()
        entry, history, detail, listed, queue = await asking
        assert list(entry) == list(history) == [prompt_id]
        assert detail["status"] == "completed"
        assert [(row["id"], row["status"]) for row in listed["jobs"]] == [(prompt_id, "completed")]
        assert queue == {"queue_running": [], "queue_pending": []}

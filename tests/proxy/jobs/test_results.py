"""Whoever wants the end of a job that ComfyUI has is heard in the end, and nobody else's job with him."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from policy.call import UpstreamCall, UpstreamReply
from policy.principal import TenantId
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.jobs import results
from proxy.jobs.job import Job, JobState
from proxy.jobs.registry import JobRegistry
from proxy.jobs.results import JobResults
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

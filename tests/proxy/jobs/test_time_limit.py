"""Which jobs are stopped for their time, and when they are asked again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from proxy.http.errors import UpstreamTimeout
from proxy.jobs.time_limit import ASK_AGAIN_S, JobTimes
from proxy.persistence.operations import Database
from tests.proxy.jobs.following import ALICE, MALLORY, Following, opened


class Times(Following):
    """An upstream that notes whom it shall interrupt."""

    def __init__(self, database: Database) -> None:
        super().__init__(self, database)
        self.window = 9
        self.stopped: list[str] = []
        self.error: Exception | None = None
        upstream: Any = self
        limits = {ALICE: 60}
        self.times = JobTimes(upstream, self.registry, self.records, limits.get, self.clock)

    async def ask(self, call: Any, **_: Any) -> None:
        assert call.target == "/interrupt"
        self.stopped.append(orjson.loads(call.body)["prompt_id"])
        if self.error is not None:
            raise self.error


@pytest.fixture
async def times() -> AsyncIterator[Times]:
    async with opened() as database:
        yield Times(database)


async def test_only_what_has_run_too_long_is_stopped(times: Times) -> None:
    running, over, elsewhere = [await times.running() for _ in range(3)]
    waiting, unlimited = await times.taken(), await times.running(MALLORY)
    times.registry.mark_over(over.prompt_id)
    elsewhere.gate = "another gate"
    times.now_s += 59
    await times.times.look()
    assert times.stopped == []
    times.now_s += 1
    await times.times.look()
    await times.times.look()
    assert times.stopped == [running.prompt_id]
    assert [times.registry.of(ALICE).stopped_after_s(job.prompt_id) for job in (running, waiting)] == [60, None]
    assert times.registry.of(MALLORY).stopped_after_s(running.prompt_id) is None
    assert (await times.stored(running.prompt_id)).stopped_after_s == 60, "who takes the job over knows why it ended"
    assert (await times.stored(unlimited.prompt_id)).stopped_after_s is None


async def test_a_job_that_does_not_stop_is_asked_again(times: Times) -> None:
    times.error = UpstreamTimeout()
    job = await times.running()
    times.now_s += 60
    for _ in range(3):
        await times.times.look()
        times.now_s += ASK_AGAIN_S
    assert times.stopped == [job.prompt_id] * 3

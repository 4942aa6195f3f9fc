"""Which jobs are stopped for their time, and when they are asked again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policy.principal import TenantId
from proxy.http.errors import UpstreamTimeout
from proxy.jobs.registry import JobRegistry
from proxy.jobs.time_limit import ASK_AGAIN_S, JobTimes

ALICE, BOB = TenantId("alice"), TenantId("bob")


class Times:
    """An upstream that notes whom it shall interrupt, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.stopped: list[str] = []
        self.error: Exception | None = None
        self.registry = JobRegistry(lambda: self.now_s)
        upstream: Any = self
        limits = {ALICE: 60}
        self.times = JobTimes(upstream, self.registry, limits.get, lambda: self.now_s)

    async def ask(self, call: Any, **_: Any) -> None:
        assert call.target == "/interrupt"
        self.stopped.append(orjson.loads(call.body)["prompt_id"])
        if self.error is not None:
            raise self.error


async def test_only_what_has_run_too_long_is_stopped() -> None:
    times = Times()
    running, waiting, unlimited, over = (times.registry.claim(tenant, None) for tenant in (ALICE, ALICE, BOB, ALICE))
    for job in (running, unlimited, over):
        times.registry.start(job)
    times.registry.mark_over(over.prompt_id)
    times.now_s += 59
    await times.times.look()
    assert times.stopped == []
    times.now_s += 1
    await times.times.look()
    await times.times.look()
    assert times.stopped == [running.prompt_id]
    assert [times.registry.of(ALICE).stopped_after_s(job.prompt_id) for job in (running, waiting)] == [60, None]
    assert times.registry.of(BOB).stopped_after_s(running.prompt_id) is None


async def test_a_job_that_does_not_stop_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    times = Times()
    times.error = UpstreamTimeout()
    job = times.registry.claim(ALICE, None)
    times.registry.start(job)
    times.now_s += 60
    for _ in range(3):
        await times.times.look()
        times.now_s += ASK_AGAIN_S
    assert times.stopped == [job.prompt_id] * 3

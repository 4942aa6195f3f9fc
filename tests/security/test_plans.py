"""How far a job is takes its workflow, and a large one is much to read: not as often as its tenant's clients come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from policy.principal import TenantId
from proxy.jobs.job_rows import JobRow, Submitted
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_operations import add_waiting
from proxy.limits.heavy_work import BYTES_PER_S, SPACED_BYTES, HeavyWork
from proxy.persistence.sqlite_file import STATE_FILE
from proxy.v2.followed_job import FollowedJob
from proxy.v2.followed_jobs import FollowedJobs
from proxy.v2.job_streams import JobStreams
from tests.proxy.conftest import opened
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.test_job_streams import Client

ALICE = TenantId("alice")
NODES = {"1": {"class_type": "EmptyImage", "inputs": {}}}
NOTHING = b"{}"


class Pause:
    """Sleeps until it is told to go on. asked: for how long, in seconds."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.is_over = asyncio.Event()

    async def sleep(self, duration_s: float) -> None:
        self.asked.append(duration_s)
        await self.is_over.wait()


async def until_read(followed: FollowedJob) -> None:
    assert followed.planning is not None
    await followed.planning


@pytest.mark.parametrize("is_large", [True, False])
async def test_large_workflows_of_one_tenant_are_read_one_after_the_other_and_not_for_who_has_left(
    is_large: bool, tmp_path: Path
) -> None:
    text = "x" * (SPACED_BYTES if is_large else 100)
    body = orjson.dumps({"prompt": NODES, "extra_data": {"text": text}})
    pause, registry = Pause(), JobRegistry()
    followed = FollowedJobs(registry, lambda: 60.0)
    async with opened(tmp_path / STATE_FILE) as database, asyncio.timeout(GUARD_S):
        streams = JobStreams(database, registry, followed, HeavyWork(clock=lambda: 0.0, sleep=pause.sleep))
        jobs = []
        for _ in range(3):
            job = registry.claim(ALICE, None)
            await database.run(add_waiting, JobRow(job.prompt_id, ALICE), Submitted(body, NOTHING, NOTHING))
            jobs.append(job.prompt_id)
        clients = [Client() for _ in jobs]
        found = []
        for prompt_id, client in zip(jobs, clients, strict=True):
            streams.attach(ALICE, prompt_id, client)
            found.append(followed.ensure(ALICE, prompt_id))
            while is_large and len(pause.asked) < len(found) - 1:
                await asyncio.sleep(0)
            if len(found) == 1:
                await until_read(found[0])
        size_s = (len(body) + 2 * len(NOTHING)) / BYTES_PER_S
        assert pause.asked == ([size_s, 2 * size_s] if is_large else [])
        clients[1].connection_lost(None)
        pause.is_over.set()
        await until_read(found[2])
        assert [each.plan is not None for each in found] == [True, not is_large, True]
        await streams.stop()


async def test_a_workflow_that_would_come_too_late_is_read_for_who_looks_next(tmp_path: Path) -> None:
    """As of a tenant whose clients have come and gone many times."""
    body = orjson.dumps({"prompt": NODES, "extra_data": {"text": "x" * SPACED_BYTES}})
    now_s, registry = 0.0, JobRegistry()
    reading = HeavyWork(clock=lambda: now_s)
    followed = FollowedJobs(registry, lambda: 60.0)
    async with opened(tmp_path / STATE_FILE) as database, asyncio.timeout(GUARD_S):
        streams = JobStreams(database, registry, followed, reading)
        await reading.space(ALICE, 100 * BYTES_PER_S)
        job = registry.claim(ALICE, None)
        await database.run(add_waiting, JobRow(job.prompt_id, ALICE), Submitted(body, NOTHING, NOTHING))
        followed.watch(ALICE, job.prompt_id)
        for plan in (None, 1):
            await streams.look_at(ALICE, job.prompt_id)
            kept = followed.ensure(ALICE, job.prompt_id)
            assert (kept.plan is None) is (plan is None)
            assert (kept.planning is None) is (plan is None)
            now_s = 200.0
        await streams.stop()

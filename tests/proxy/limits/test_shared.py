"""Several gates on one Redis hold one limit together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from policy.routes import Budget
from proxy.config.limits import LimitsSettings
from proxy.http.errors import LimitExceeded
from proxy.jobs.registry import Job
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.leases import LEASE_S
from proxy.limits.rate_limiter import Limiter
from proxy.limits.redis_store import SharedStore
from proxy.limits.sliding_window import quotas, tightest
from tests.proxy.conftest import PATIENCE_S, Clock, RedisServer, allotment, context
from tests.proxy.limits.gates import ALICE, gates, passed


async def test_two_gates_hold_one_rate_together(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, prompts="30/minute; 50/day") as (one, two):
        results = await asyncio.gather(one.prompts(40), two.prompts(40))
        assert sum(results) == 30
        assert await one.prompts(1) == await two.prompts(1) == 0


async def test_a_refusal_by_redis_says_the_same_as_one_by_memory(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, prompts="3/minute") as (one, two):
        headers = dict(await one.limiter.acquire(context(), Budget.SUBMIT))
        assert headers["RateLimit-Policy"].endswith('"prompts-per-minute";q=3;w=60')
        assert '"prompts-per-minute";r=2;' in headers["RateLimit"]
        headers = dict(await two.limiter.acquire(context(), Budget.SUBMIT))
        assert '"prompts-per-minute";r=1;' in headers["RateLimit"]
        await two.limiter.acquire(context(), Budget.SUBMIT)
        with pytest.raises(LimitExceeded, match="3 prompts per minute of the tenant is reached") as caught:
            await one.limiter.acquire(context(), Budget.SUBMIT)
        assert 0 < caught.value.retry_after_s < 61
        left = {item.name: item.remaining for item in await one.limiter.remaining(context())}
        assert left["prompts-per-minute"] == 0
        assert left["requests-per-minute"] == 597


async def test_the_counters_are_those_of_the_limits_library(redis: RedisServer, tmp_path: Path) -> None:
    """Its own strategy reads what a gate has spent, and the gate what the library spends."""
    async with gates(redis, tmp_path, count=1, requests="10/hour") as (gate,):
        for _ in range(3):
            await gate.limiter.acquire(context(), Budget.READ)
        storage = RedisStorage(f"async+{redis.url}", implementation="redispy", key_prefix="comfygate")
        (quota,), (item,) = quotas("10/hour", "requests", "tenant", "alice"), tightest("10/hour")
        previous, _, current, _ = await storage.get_sliding_window(quota.key, quota.window_s)
        assert (previous, current) == (0, 3)
        library = SlidingWindowCounterRateLimiter(storage)
        assert item.amount == 10
        assert await storage.acquire_sliding_window_entry(quota.key, 10, quota.window_s, 6)
        assert library.storage is storage
        await gate.limiter.acquire(context(), Budget.READ)
        with pytest.raises(LimitExceeded):
            await gate.limiter.acquire(context(), Budget.READ)
        assert not await storage.acquire_sliding_window_entry(quota.key, 10, quota.window_s, 1)
        await storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]


async def test_windows_slide_in_redis_as_in_memory(redis: RedisServer, tmp_path: Path) -> None:
    """The current counter's time to live is set back instead of waiting: half of the next window has gone."""
    async with gates(redis, tmp_path, requests="10/minute") as (one, two), Redis.from_url(redis.url) as other:
        assert await passed(10, lambda index: one.limiter.acquire(context(), Budget.READ)) == 10
        await other.pexpire("comfygate:{requests:tenant:alice:60}", 30_500)
        # A gate that was never refused has no reason not to ask.
        assert 4 <= await passed(10, lambda index: two.limiter.acquire(context(), Budget.READ)) <= 5
        assert 0 < await other.pttl("comfygate:{requests:tenant:alice:60}/-1") <= 30_500


async def test_two_gates_share_slots_and_none_is_lost(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, queued_jobs=10) as (one, two), Redis.from_url(redis.url) as other:
        mine, yours = await asyncio.gather(one.jobs(500, "one-"), two.jobs(500, "two-"))
        assert len(mine) + len(yours) == 10
        for gate, ids in ((one, mine), (two, yours)):
            for prompt_id in ids:
                gate.slots.free_job(prompt_id)
        # In line behind the freeing: nothing is left claimed.
        assert len(await one.jobs(20, "again-")) + len(await two.jobs(20, "again-")) in (10, 20)
        assert await other.zcard("comfygate:jobs:alice") == 10


async def test_another_gates_observer_frees_a_job(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, queued_jobs=1) as (one, two):
        await one.slots.claim_job(ALICE, "job")
        two.slots.reconcile({"job": ALICE})
        with pytest.raises(LimitExceeded):
            await two.slots.claim_job(ALICE, "next")
        two.slots.free_job("job")
        await two.slots.claim_job(ALICE, "next")


async def test_the_claims_of_a_dead_gate_end_with_their_lease(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, queued_jobs=1) as (one, two), Redis.from_url(redis.url) as other:
        await one.slots.claim_job(ALICE, "job")
        lease_ms = await other.zscore("comfygate:jobs:alice", "job") or 0.0
        time_s, time_us = await other.time()
        assert 0 < lease_ms - (time_s * 1000 + time_us / 1000) <= LEASE_S * 1000
        with pytest.raises(LimitExceeded):
            await two.slots.claim_job(ALICE, "next")
        await other.zadd("comfygate:jobs:alice", {"job": 1.0})
        await two.slots.claim_job(ALICE, "next")


async def test_a_living_gate_renews_its_leases(redis: RedisServer) -> None:
    exclusive_runs = asyncio.Semaphore(0)
    renewed = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        assert seconds == LEASE_S / 3
        renewed.release()
        await exclusive_runs.acquire()

    store = SharedStore(redis.url, timeout_s=PATIENCE_S)
    await store.start()
    slots = ConcurrencyLimits(allotment({}), store, sleep=sleep)
    await slots.start()
    try:
        async with Redis.from_url(redis.url) as other:
            await slots.claim_job(ALICE, "job")
            slot = await slots.claim_socket(context())
            await other.zadd("comfygate:jobs:alice", {"job": 1.0})
            await renewed.acquire()
            exclusive_runs.release()
            await renewed.acquire()
            assert (await other.zscore("comfygate:jobs:alice", "job") or 0.0) > 1.0
            assert await other.zcard("comfygate:sockets:alice") == 1
            slot.release()
            with pytest.raises(LimitExceeded):
                await ConcurrencyLimits(allotment({"queued_jobs": 1}), store).claim_job(ALICE, "next")
            assert await other.zcard("comfygate:sockets:alice") == 0
            await redis.kill()
            exclusive_runs.release()
            await renewed.acquire()
            assert not store.is_up
            exclusive_runs.release()
            await renewed.acquire()
    finally:
        await slots.stop()
        await store.stop()


async def test_a_client_that_leaves_while_it_claims_holds_nothing(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, queued_jobs=1) as (one, two):
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(one.slots.claim_job(ALICE, "leaving"))
            await asyncio.sleep(0)
            leaving.cancel()
        assert leaving.cancelled()
        await one.slots.claim_job(ALICE, "next")
        with pytest.raises(LimitExceeded):
            await two.slots.claim_job(ALICE, "third")


async def test_guessing_meets_one_wall_at_all_gates(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path) as (one, two):
        delays = [await gate.logins.delay_or_refuse("203.0.113.9", "key") for gate in (one, one, two, two)]
        # The first failure of anybody stays at its gate; from the second on all gates count together.
        assert delays == [1.0, 2.0, 1.0, 8.0]
        await one.logins.delay_or_refuse("203.0.113.9", "key")
        for gate in (one, two):
            with pytest.raises(LimitExceeded):
                await gate.logins.delay_or_refuse("203.0.113.9", "key")


async def test_a_flood_from_ever_new_addresses_leaves_redis_empty(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, count=1) as (gate,), Redis.from_url(redis.url) as other:
        for index in range(500):
            await gate.logins.delay_or_refuse(f"198.51.{index >> 8}.{index & 255}", f"{index:08x}")
        assert await other.dbsize() == 0


async def test_gpu_seconds_are_counted_together_and_once(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, gpu_seconds="100/day") as (one, two):
        # Both gates watch the same ComfyUI and see the same job end.
        await one.budgets.add(ALICE, "seen by both", 60.0)
        await two.budgets.add(ALICE, "seen by both", 60.0)
        (left,) = await two.budgets.remaining(ALICE)
        assert left.remaining == 40.0
        await one.budgets.add(ALICE, "seen by one", 40.0)
        with pytest.raises(LimitExceeded, match="100 GPU seconds per day"):
            await two.budgets.check(ALICE)


async def test_runs_of_one_prompt_id_are_counted_each(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, gpu_seconds="100/day") as (one, two):
        for number in (1.0, 2.0):
            for gate in (one, two):
                await gate.budgets.add(ALICE, Job("the same", ALICE, number=number, started_at_s=number).run_id, 30.0)
        assert [(await gate.budgets.remaining(ALICE))[0].remaining for gate in (one, two)] == [40.0, 40.0]


async def test_rates_known_to_be_full_cost_no_round_trip(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, count=1, prompts="3/hour") as (gate,):
        assert await gate.prompts(4) == 3
        async with Redis.from_url(redis.url) as other:
            await other.config_resetstat()
            for _ in range(200):
                assert await gate.prompts(1) == 0
            calls = (await other.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        # One for each second that the 200 refusals took.
        assert calls < 100


async def test_what_was_full_is_asked_again_after_a_second_and_after_a_reload(
    redis: RedisServer, store: SharedStore, clock: Clock
) -> None:
    limits = allotment({"prompts": "2/hour"})
    limiter = Limiter(limits, store, clock=clock)

    async def is_granted() -> bool:
        return await passed(1, lambda index: limiter.acquire(context(), Budget.SUBMIT)) == 1

    assert [await is_granted() for _ in range(3)] == [True, True, False]
    async with Redis.from_url(redis.url) as other:
        await other.flushall()
    assert not await is_granted()
    clock.pass_s(1.5)
    assert await is_granted()
    assert [await is_granted() for _ in range(2)] == [True, False]
    settings = LimitsSettings.model_validate({"default": {"prompts": "3/hour"}})
    limits.apply(settings, {"alice": "default"})
    assert [await is_granted() for _ in range(2)] == [True, False]

"""Redis dies, hangs and returns: nothing is opened by it, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.redis_store import SharedStore
from tests.proxy.conftest import PATIENCE_S, RedisServer, allotment, context
from tests.proxy.limits.gates import ALICE, Gate, die, gates, revive


async def test_the_death_of_redis_opens_nothing(redis: RedisServer, tmp_path: Path) -> None:
    limits: dict[str, Any] = {
        "requests": None,
        "prompts": "10/hour",
        "queued_jobs": 4,
        "gpu_seconds": "100/day",
        "websockets": 2,
    }
    async with gates(redis, tmp_path, 2, **limits) as (one, two):
        assert await one.prompts(6) == 6
        # What the other has spent is known from the last answer.
        assert await two.prompts(2) == 2
        held = await one.jobs(3, "before-")
        await one.budgets.add(ALICE, "job", 100.0)
        with pytest.raises(LimitExceeded):
            await two.budgets.check(ALICE)
        await one.slots.claim_socket(context())
        for _ in range(3):
            await one.logins.delay_or_refuse("203.0.113.9")

        await die(redis, one, two)
        assert await two.prompts(10) == 2
        assert await one.prompts(10) <= 4
        assert len(await one.jobs(10, "alone-")) == 1
        for gate in (one, two):
            with pytest.raises(LimitExceeded):
                await gate.budgets.check(ALICE)
        await one.budgets.add(TenantId("bob"), "bobs", 100.0)
        assert await one.logins.delay_or_refuse("203.0.113.9") == 8.0
        await one.slots.claim_socket(context())
        with pytest.raises(LimitExceeded):
            await one.slots.claim_socket(context())
        one.slots.free_job(held[0])

        # It comes back with nothing, and is told.
        await revive(redis, one, two)
        assert await one.prompts(10) == await two.prompts(10) == 0
        for tenant in (ALICE, TenantId("bob")):
            with pytest.raises(LimitExceeded):
                await two.budgets.check(tenant)
        assert await one.logins.delay_or_refuse("203.0.113.9") == 16.0
        assert len(await two.jobs(10, "after-")) == 1
        with pytest.raises(LimitExceeded):
            await two.slots.claim_socket(context())
        # A gate that knows nothing of its own learns all of it from Redis.
        async with gates(redis, tmp_path / "new", 1, **limits) as (new,):
            assert await new.prompts(1) == 0
            assert await new.jobs(1, "new-") == []
            with pytest.raises(LimitExceeded):
                await new.budgets.check(ALICE)


async def test_a_slot_freed_while_redis_was_gone_is_free_afterwards(redis: RedisServer, tmp_path: Path) -> None:
    """Redis hangs and comes back with all it had."""
    gate = Gate(redis, tmp_path, "gate", {"queued_jobs": 2})
    gate.store = SharedStore(redis.url, timeout_s=1.0, on_change=gate.changed, sleep=gate.sleep)
    slots = ConcurrencyLimits(allotment({"queued_jobs": 2}), gate.store, sleep=gate.sleep_for_ever)
    await gate.store.start()
    try:
        await slots.claim_job(ALICE, "freed in line")
        await slots.claim_job(ALICE, "freed alone")
        gate.is_back.clear()
        redis.freeze()
        slots.free_job("freed in line")
        await asyncio.wait_for(gate.is_gone.wait(), PATIENCE_S)
        slots.free_job("freed alone")
        redis.thaw()
        await asyncio.wait_for(gate.is_back.wait(), PATIENCE_S)
        async with Redis.from_url(redis.url) as other:
            assert await other.zcard("comfygate:jobs:alice") == 0
    finally:
        redis.thaw()
        await gate.store.stop()


async def test_killing_redis_in_the_middle_of_1000_claims_lets_no_more_than_10_pass(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with gates(redis, tmp_path, count=1, queued_jobs=10) as (gate,):
        claims = asyncio.gather(*(gate.jobs(100, f"part{part}-") for part in range(10)))
        await asyncio.sleep(0)
        await redis.kill()
        got = [prompt_id for part in await claims for prompt_id in part]
        assert len(got) == 10
        for prompt_id in got:
            gate.slots.free_job(prompt_id)
        assert gate.slots.jobs_of(ALICE) == 0
        assert len(await gate.jobs(50, "later-")) == 10


async def test_calls_in_flight_when_redis_dies_are_counted_in_memory(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, 1, prompts="5/hour", gpu_seconds="10/day") as (gate,):
        await gate.budgets.check(TenantId("bob"))
        await gate.logins.delay_or_refuse("203.0.113.9")
        redis.freeze()
        prompts = asyncio.gather(gate.prompts(9), gate.prompts(9))
        budget = asyncio.gather(gate.budgets.check(TenantId("bob")), gate.budgets.add(ALICE, "job", 10.0))
        login = asyncio.gather(gate.logins.delay_or_refuse("203.0.113.9"), asyncio.sleep(0))
        await asyncio.sleep(0)
        await redis.kill()
        assert sum(await prompts) == 5
        await budget
        assert (await login)[0] == 2.0
        with pytest.raises(LimitExceeded):
            await gate.budgets.check(ALICE)

"""Several gates on one Redis: they hold one limit together, and its death opens nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis

from policy.principal import TenantId
from policy.routes import Budget
from proxy.config.limits import LimitsSettings, LoginLimitSettings
from proxy.errors import LimitExceeded
from proxy.limits.budgets import Budgets
from proxy.limits.logins import Logins
from proxy.limits.rates import Limiter
from proxy.limits.scripts import TOTALS, Call
from proxy.limits.slots import LEASE_S, Slots
from proxy.limits.store import SharedStore, StoreUnavailable
from proxy.limits.windows import quotas, tightest
from tests.proxy.limits.conftest import PATIENCE_S, Clock, RedisServer, allotment, caller

ALICE = TenantId("alice")


class Gate:
    """The limits of one gate."""

    def __init__(self, redis: RedisServer, folder: Path, name: str, limits: dict[str, Any]) -> None:
        self.is_back = asyncio.Event()
        self.is_gone = asyncio.Event()
        self.store = SharedStore(redis.url, timeout_s=PATIENCE_S, on_change=self._changed, sleep=self._sleep)
        self.clock = Clock()
        allowed = allotment(limits)
        self.limiter = Limiter(allowed, self.store)
        self.slots = Slots(allowed, self.store, sleep=self._sleep_for_ever)
        self.logins = Logins(LoginLimitSettings(failures="5/hour", delay=1.0, max_delay=64.0), self.store)
        self.budgets = Budgets(allowed, folder / f"{name}.sqlite3", self.store)

    def _changed(self, is_up: bool) -> None:
        (self.is_back if is_up else self.is_gone).set()

    @staticmethod
    async def _sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    @staticmethod
    async def _sleep_for_ever(seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        await self.budgets.start()
        await self.store.start()
        await self.slots.start()

    async def stop(self) -> None:
        await self.slots.stop()
        await self.store.stop()
        await self.budgets.stop()

    async def prompts(self, attempts: int) -> int:
        return await passed(attempts, lambda index: self.limiter.acquire(caller(), Budget.SUBMIT))

    async def jobs(self, attempts: int, prefix: str) -> list[str]:
        ids = [f"{prefix}{index}" for index in range(attempts)]
        answers = await asyncio.gather(*(self.slots.claim_job(ALICE, one) for one in ids), return_exceptions=True)
        assert all(answer is None or isinstance(answer, LimitExceeded) for answer in answers)
        return [one for one, answer in zip(ids, answers, strict=True) if answer is None]


async def passed(attempts: int, attempt: Callable[[int], Any]) -> int:
    answers = await asyncio.gather(*(attempt(index) for index in range(attempts)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, LimitExceeded) for answer in refused), refused
    return attempts - len(refused)


@asynccontextmanager
async def gates(redis: RedisServer, folder: Path, count: int = 2, **limits: Any) -> AsyncIterator[list[Gate]]:
    made = [Gate(redis, folder, f"gate{index}", limits) for index in range(count)]
    for gate in made:
        await gate.start()
        assert gate.store.is_up
    try:
        yield made
    finally:
        for gate in made:
            await gate.stop()


async def die(redis: RedisServer, *there: Gate) -> None:
    """Redis dies, and the gates notice."""
    for gate in there:
        gate.is_back.clear()
        gate.is_gone.clear()
    await redis.kill()
    for gate in there:
        with pytest.raises(StoreUnavailable):
            await gate.store.run(Call(TOTALS, ("nothing",), ()))
        await asyncio.wait_for(gate.is_gone.wait(), PATIENCE_S)


async def revive(redis: RedisServer, *there: Gate) -> None:
    await redis.start()
    for gate in there:
        await asyncio.wait_for(gate.is_back.wait(), PATIENCE_S)


async def test_two_gates_hold_one_rate_together(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, prompts="30/minute; 50/day") as (one, two):
        results = await asyncio.gather(one.prompts(40), two.prompts(40))
        assert sum(results) == 30
        assert await one.prompts(1) == await two.prompts(1) == 0


async def test_a_refusal_by_redis_says_the_same_as_one_by_memory(redis: RedisServer, tmp_path: Path) -> None:
    async with gates(redis, tmp_path, prompts="3/minute") as (one, two):
        headers = dict(await one.limiter.acquire(caller(), Budget.SUBMIT))
        assert headers["RateLimit-Policy"].endswith('"prompts-per-minute";q=3;w=60')
        assert '"prompts-per-minute";r=2;' in headers["RateLimit"]
        headers = dict(await two.limiter.acquire(caller(), Budget.SUBMIT))
        assert '"prompts-per-minute";r=1;' in headers["RateLimit"]
        await two.limiter.acquire(caller(), Budget.SUBMIT)
        with pytest.raises(LimitExceeded, match="3 prompts per minute of the tenant is reached") as caught:
            await one.limiter.acquire(caller(), Budget.SUBMIT)
        assert 0 < caught.value.retry_after_s < 61
        left = {item.name: item.remaining for item in await one.limiter.remaining(caller())}
        assert left["prompts-per-minute"] == 0
        assert left["requests-per-minute"] == 597


async def test_the_counters_are_those_of_the_limits_library(redis: RedisServer, tmp_path: Path) -> None:
    """Its own strategy reads what a gate has spent, and the gate what the library spends."""
    async with gates(redis, tmp_path, count=1, requests="10/hour") as (gate,):
        for _ in range(3):
            await gate.limiter.acquire(caller(), Budget.READ)
        storage = RedisStorage(f"async+{redis.url}", implementation="redispy", key_prefix="comfygate")
        (quota,), (item,) = quotas("10/hour", "requests", "tenant", "alice"), tightest("10/hour")
        previous, _, current, _ = await storage.get_sliding_window(quota.key, quota.window_s)
        assert (previous, current) == (0, 3)
        library = SlidingWindowCounterRateLimiter(storage)
        assert item.amount == 10
        assert await storage.acquire_sliding_window_entry(quota.key, 10, quota.window_s, 6)
        assert library.storage is storage
        await gate.limiter.acquire(caller(), Budget.READ)
        with pytest.raises(LimitExceeded):
            await gate.limiter.acquire(caller(), Budget.READ)
        assert not await storage.acquire_sliding_window_entry(quota.key, 10, quota.window_s, 1)
        await storage.bridge.get_connection().aclose()  # type: ignore[attr-defined]


async def test_windows_slide_in_redis_as_in_memory(redis: RedisServer, tmp_path: Path) -> None:
    """The current counter's time to live is set back instead of waiting: half of the next window has gone."""
    async with gates(redis, tmp_path, requests="10/minute") as (one, two), Redis.from_url(redis.url) as other:
        assert await passed(10, lambda index: one.limiter.acquire(caller(), Budget.READ)) == 10
        await other.pexpire("comfygate:{requests:tenant:alice:60}", 30_500)
        # A gate that was never refused has no reason not to ask.
        assert 4 <= await passed(10, lambda index: two.limiter.acquire(caller(), Budget.READ)) <= 5
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
    turns = asyncio.Semaphore(0)
    renewed = asyncio.Semaphore(0)

    async def sleep(seconds: float) -> None:
        assert seconds == LEASE_S / 3
        renewed.release()
        await turns.acquire()

    store = SharedStore(redis.url, timeout_s=PATIENCE_S)
    await store.start()
    slots = Slots(allotment({}), store, sleep=sleep)
    await slots.start()
    try:
        async with Redis.from_url(redis.url) as other:
            await slots.claim_job(ALICE, "job")
            slot = await slots.claim_socket(caller())
            await other.zadd("comfygate:jobs:alice", {"job": 1.0})
            await renewed.acquire()
            turns.release()
            await renewed.acquire()
            assert (await other.zscore("comfygate:jobs:alice", "job") or 0.0) > 1.0
            assert await other.zcard("comfygate:sockets:alice") == 1
            slot.release()
            with pytest.raises(LimitExceeded):
                await Slots(allotment({"queued_jobs": 1}), store).claim_job(ALICE, "next")
            assert await other.zcard("comfygate:sockets:alice") == 0
            await redis.kill()
            turns.release()
            await renewed.acquire()
            assert not store.is_up
            turns.release()
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
        await one.slots.claim_socket(caller())
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
        await one.slots.claim_socket(caller())
        with pytest.raises(LimitExceeded):
            await one.slots.claim_socket(caller())
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
            await two.slots.claim_socket(caller())


async def test_a_slot_freed_while_redis_was_gone_is_free_afterwards(redis: RedisServer, tmp_path: Path) -> None:
    """Redis hangs and comes back with all it had."""
    gate = Gate(redis, tmp_path, "gate", {"queued_jobs": 2})
    gate.store = SharedStore(redis.url, timeout_s=0.25, on_change=gate._changed, sleep=gate._sleep)
    slots = Slots(allotment({"queued_jobs": 2}), gate.store, sleep=gate._sleep_for_ever)
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
        return await passed(1, lambda index: limiter.acquire(caller(), Budget.SUBMIT)) == 1

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

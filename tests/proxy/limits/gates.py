"""Gates that share one Redis, for tests: started together, and told when it dies and returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policy.principal import TenantId
from policy.routes import Budget
from proxy.config.limits import LoginLimitSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.failed_logins import FailedLogins
from proxy.limits.gpu_budget import GpuBudgets
from proxy.limits.rate_limiter import Limiter
from proxy.limits.redis_scripts import TOTALS, Call
from proxy.limits.redis_store import SharedStore
from proxy.limits.store_unavailable import StoreUnavailable
from proxy.persistence.sqlite import SqliteDatabase
from tests.proxy.conftest import PATIENCE_S, RedisServer, allotment, context

ALICE = TenantId("alice")


class Gate:
    """The limits of one gate."""

    def __init__(self, redis: RedisServer, folder: Path, name: str, limits: dict[str, Any]) -> None:
        self.is_back = asyncio.Event()
        self.is_gone = asyncio.Event()
        self.store = SharedStore(redis.url, timeout_s=PATIENCE_S, on_change=self.changed, sleep=self.sleep)
        allowed = allotment(limits)
        self.limiter = Limiter(allowed, self.store)
        self.slots = ConcurrencyLimits(allowed, self.store, sleep=self.sleep_for_ever)
        self.logins = FailedLogins(LoginLimitSettings(failures="5/hour", delay=1.0, max_delay=64.0), self.store)
        self.state = SqliteDatabase(folder / f"{name}.sqlite3")
        self.budgets = GpuBudgets(allowed, self.state, self.store)

    def changed(self, is_up: bool) -> None:
        (self.is_back if is_up else self.is_gone).set()

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    @staticmethod
    async def sleep_for_ever(seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        await self.state.open()
        await self.budgets.start()
        await self.store.start()
        await self.slots.start()

    async def stop(self) -> None:
        await self.slots.stop()
        await self.store.stop()
        await self.state.close()

    async def prompts(self, attempts: int) -> int:
        return await passed(attempts, lambda index: self.limiter.acquire(context(), Budget.SUBMIT))

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

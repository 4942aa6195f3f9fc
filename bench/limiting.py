"""What limits cost: microseconds per request in memory and with Redis, the limits library beside it, fair queueing, and a flood of bad logins.

Redis is started for the run, on a free port, when redis-server is installed.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from policy.fairness import Head, next_of
from policy.principal import Principal, parse_tenant
from policy.routes import Budget
from proxy.config.limits import LimitsSettings, LoginLimitSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.failed_logins import FailedLogins
from proxy.limits.rate_limiter import Limiter
from proxy.limits.redis_store import SharedStore
from tests.ports import free_port

ROUNDS: Final = 5
TARGET_US: Final = 4.0
_HUGE: Final = "1000000000/minute"

Work = Callable[[], Awaitable[Any]]


def _allotment(tenants: int = 1) -> EffectiveLimits:
    settings = LimitsSettings.model_validate(
        {
            "default": {"requests": _HUGE, "prompts": f"{_HUGE}; 2000000000/day", "queued_jobs": 1_000_000},
            "key": {"requests": _HUGE, "prompts": _HUGE},
        }
    )
    names = {f"t{index}": "default" for index in range(tenants)}
    return EffectiveLimits(settings, names, {("t0", "with-limits"): "key"})


async def measure(work: Work, count: int) -> tuple[float, float]:
    """Microseconds of one call, one after the other: by the clock and of this process's CPU; the least of several rounds."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await work()
        walls.append((time.perf_counter() - wall) / count * 1e6)
        cpus.append((time.process_time() - cpu) / count * 1e6)
    return min(walls), min(cpus)


async def measure_together(work: Work, count: int, width: int = 64) -> tuple[float, float]:
    """As `measure`, for `width` callers at a time."""

    async def one_after_the_other() -> None:
        for _ in range(count // width):
            await work()

    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one_after_the_other() for _ in range(width)))
        walls.append((time.perf_counter() - wall) / count * 1e6)
        cpus.append((time.process_time() - cpu) / count * 1e6)
    return min(walls), min(cpus)


def show(name: str, figures: tuple[float, float], target: float | None = None) -> None:
    wall, cpu = figures
    print(f"{name:<52} {wall:>9.1f} {cpu:>9.1f} {'' if target is None else f'{target:.0f}':>7}")


async def bench_rates(store: SharedStore | None, count: int, title: str) -> None:
    limiter = Limiter(_allotment(), store)
    plain = Principal("plain", parse_tenant("t0"))
    limited = Principal("with-limits", parse_tenant("t0"))
    target = TARGET_US if store is None else None

    async def spend(who: Principal, budget: Budget) -> None:
        if limiter.acquire_at_once(who, budget) is None:
            await limiter.acquire(who, budget)

    show(f"{title}: a request, one window", await measure(lambda: spend(plain, Budget.READ), count), target)
    show(f"{title}: a prompt, five windows", await measure(lambda: spend(limited, Budget.SUBMIT), count))
    if store is not None:
        figures = await measure_together(lambda: limiter.acquire(plain, Budget.READ), count * 4)
        show(f"{title}: a request, 64 at a time", figures)


async def bench_slots(store: SharedStore | None, count: int, title: str) -> None:
    slots = ConcurrencyLimits(_allotment(), store)
    tenant = parse_tenant("t0")

    async def claim_and_free() -> None:
        await slots.claim_job(tenant, "job")
        slots.free_job("job")

    show(f"{title}: a job's slot, claimed and freed", await measure(claim_and_free, count))


async def bench_library(others: int) -> None:
    limiter, item = SlidingWindowCounterRateLimiter(MemoryStorage()), parse(_HUGE)
    for index in range(others):
        await limiter.hit(item, f"t{index}")

    async def hit() -> None:
        await limiter.hit(item, "t0")
        # It starts a task at each hit, whose work belongs to the hit.
        await asyncio.sleep(0)

    show(f"limits library, memory, one window, {others} keys", await measure(hit, 2000 if others < 100 else 50))


async def bench_fairness(tenants: int) -> None:
    heads = [Head(parse_tenant(f"t{index}"), index / 7, f"job-{index}", index) for index in range(tenants)]

    async def choose() -> None:
        next_of(heads, 1.0)

    show(f"fair queueing: who is next, {tenants} tenants wait", await measure(choose, 2000))


async def bench_flood() -> None:
    """50,000 bad keys from 10,000 addresses, and a good caller among them."""
    logins, limiter = FailedLogins(LoginLimitSettings()), Limiter(_allotment())
    good = Principal("plain", parse_tenant("t0"))
    waits_ms: list[float] = []
    is_over = False

    async def flood() -> None:
        nonlocal is_over
        for index in range(50_000):
            address = index % 10_000
            try:
                await logins.delay_or_refuse(f"198.18.{address >> 8}.{address & 255}", f"{index:08x}")
            except LimitExceeded:
                continue
            finally:
                if index % 20 == 0:
                    await asyncio.sleep(0)
        is_over = True

    async def ask() -> None:
        while not is_over:
            started_s = time.perf_counter()
            await asyncio.sleep(0)
            await limiter.acquire(good, Budget.READ)
            waits_ms.append((time.perf_counter() - started_s) * 1000)

    cpu = time.process_time()
    await asyncio.gather(flood(), ask())
    per_failure_us = (time.process_time() - cpu) / 50_000 * 1e6
    print(
        f"flood of 50,000 bad keys: {per_failure_us:.0f} µs CPU each, {len(logins)} counters kept, "
        f"a good caller waited {statistics.median(waits_ms):.2f} ms at the median"
    )


@asynccontextmanager
async def redis_server() -> AsyncIterator[str | None]:
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if b"Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        await process.communicate()


async def run() -> None:
    print("what limits cost (µs for each call)")
    print(f"{'':<52} {'clock':>9} {'CPU':>9} {'target':>7}")
    await bench_rates(None, 20_000, "memory")
    await bench_slots(None, 5_000, "memory")
    for others in (1, 10_000):
        await bench_library(others)
    async with redis_server() as url:
        if url is None:
            print("Redis: not measured, redis-server is not installed")
        else:
            store = SharedStore(url, timeout_s=5.0)
            await store.start()
            await bench_rates(store, 1_000, "Redis")
            await bench_slots(store, 500, "Redis")
            await store.stop()
    for pending in (10, 500):
        await bench_fairness(pending)
    await bench_flood()


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()

"""GPU seconds: refused when spent, renewed on time, counted once, kept over restarts and kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.config.limits import LimitsSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.limits.gpu_usage_db import UsageFile
from tests.proxy.conftest import Clock, allotment

ALICE, BOB = TenantId("alice"), TenantId("bob")
NOON_S = 20_000 * 86_400 + 43_200.0


@asynccontextmanager
async def budgets_of(limits: EffectiveLimits, file: Path, clock: Clock) -> AsyncIterator[GpuBudgets]:
    budgets = GpuBudgets(limits, file, clock=clock)
    await budgets.start()
    try:
        yield budgets
    finally:
        await budgets.stop()


@pytest.fixture
def noon() -> Clock:
    return Clock(NOON_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "usage.sqlite3"


async def is_refused(budgets: GpuBudgets, tenant: TenantId, queued_s: float = 0.0) -> bool:
    try:
        await budgets.check(tenant, queued_s)
    except LimitExceeded:
        return True
    return False


async def test_a_spent_budget_says_when_it_renews(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        await budgets.add(ALICE, "1", 99.5)
        await budgets.check(ALICE)
        await budgets.add(ALICE, "2", 0.5)
        with pytest.raises(LimitExceeded) as caught:
            await budgets.check(ALICE)
        assert caught.value.message == (
            "The budget of 100 GPU seconds per day of the tenant is spent: 100 s are used. It renews in 12 h."
        )
        assert (caught.value.retry_after_s, caught.value.reason) == (43_200, "budget-spent")
        await budgets.check(BOB)
        noon.pass_s(43_200)
        await budgets.check(ALICE)


async def test_what_is_queued_counts_before_it_has_run(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        await budgets.add(ALICE, "1", 60.0)
        assert not await is_refused(budgets, ALICE, 39.0)
        with pytest.raises(LimitExceeded, match="60 s are used, and what waits or runs may take the rest"):
            await budgets.check(ALICE, 40.0)


async def test_a_job_counts_once(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        for _ in range(5):
            await budgets.add(ALICE, "the same", 30.0)
        (left,) = await budgets.remaining(ALICE)
    assert (left.name, left.size, left.total, left.remaining) == ("gpu-seconds-per-day", "100/day", 100, 70.0)
    assert left.renews_in_s == 43_200


async def test_several_windows_hold_at_once(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/hour; 250/day"}), file, noon) as budgets:
        for hour in range(3):
            assert not await is_refused(budgets, ALICE)
            await budgets.add(ALICE, f"job-{hour}", 100.0)
            assert await is_refused(budgets, ALICE)
            noon.pass_s(3600)
        with pytest.raises(LimitExceeded, match="250 GPU seconds per day"):
            await budgets.check(ALICE)


async def test_spending_survives_a_restart(file: Path, noon: Clock) -> None:
    limits = allotment({"gpu_seconds": "100/day"})
    async with budgets_of(limits, file, noon) as budgets:
        await budgets.add(ALICE, "1", 100.0)
    async with budgets_of(limits, file, noon) as budgets:
        assert await is_refused(budgets, ALICE)
        await budgets.add(ALICE, "1", 100.0)
        assert (await budgets.remaining(ALICE))[0].remaining == 0


async def test_a_gate_that_is_killed_loses_nothing(file: Path, noon: Clock) -> None:
    script = (
        "import sys, pathlib\n"
        "from proxy.limits.gpu_usage_db import UsageFile\n"
        "usage = UsageFile(pathlib.Path(sys.argv[1]))\n"
        "for index in range(10**9):\n"
        "    usage.add(f'job-{index}', 'alice', float(sys.argv[2]), 1.0)\n"
        "    print(index, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(file), str(NOON_S)], stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as writer:
        assert writer.stdout is not None
        written = 0
        while written < 20:
            written = int(writer.stdout.readline()) + 1
        os.kill(writer.pid, signal.SIGKILL)
        written += len(writer.stdout.read().splitlines())
    async with budgets_of(allotment({"gpu_seconds": "1000000/day"}), file, noon) as budgets:
        (left,) = await budgets.remaining(ALICE)
    assert written <= left.total - left.remaining <= written + 1


async def test_a_reload_with_another_window_knows_what_was_spent(file: Path, noon: Clock) -> None:
    limits = allotment({"gpu_seconds": "100/hour"})
    async with budgets_of(limits, file, noon) as budgets:
        await budgets.add(ALICE, "1", 80.0)
        limits.apply(LimitsSettings.model_validate({"default": {"gpu_seconds": "50/day"}}), {"alice": "default"})
        assert await is_refused(budgets, ALICE)
        limits.apply(LimitsSettings.model_validate({"default": {}}), {"alice": "default"})
        assert not await is_refused(budgets, ALICE)
        assert await budgets.remaining(ALICE) == []


async def test_a_job_of_yesterday_counts_for_yesterday(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        await budgets.add(ALICE, "late news", 500.0, ended_at_s=NOON_S - 86_400)
        assert not await is_refused(budgets, ALICE)
        await budgets.add(ALICE, "today", 500.0, ended_at_s=NOON_S - 60)
        assert await is_refused(budgets, ALICE)


async def test_without_a_budget_usage_is_still_written(file: Path, noon: Clock) -> None:
    limits = allotment({})
    async with budgets_of(limits, file, noon) as budgets:
        await budgets.add(ALICE, "1", 80.0)
        await budgets.check(ALICE)
        limits.apply(LimitsSettings.model_validate({"default": {"gpu_seconds": "50/day"}}), {"alice": "default"})
        assert await is_refused(budgets, ALICE)


@pytest.mark.parametrize("gpu_s", [-1.0, float("nan"), float("inf")])
async def test_what_is_no_duration_is_a_bug(file: Path, noon: Clock, gpu_s: float) -> None:
    async with budgets_of(allotment({}), file, noon) as budgets:
        with pytest.raises(ValueError, match="no number of seconds"):
            await budgets.add(ALICE, "1", gpu_s)


async def test_a_file_that_cannot_be_written_gives_nobody_free_time(
    file: Path, noon: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        with sqlite3.connect(file) as other:
            other.execute("DROP TABLE jobs")
        other.close()
        await budgets.add(ALICE, "1", 100.0)
        assert await is_refused(budgets, ALICE)
    assert "GPU seconds of job 1 are not in" in caplog.text


async def test_a_damaged_file_is_not_taken_for_an_unspent_budget(file: Path, noon: Clock) -> None:
    file.parent.mkdir()
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        await GpuBudgets(allotment({}), file, clock=noon).start()


async def test_old_rows_are_forgotten(file: Path, noon: Clock) -> None:
    usage = UsageFile(file)
    usage.add("old", "alice", NOON_S - 40 * 86_400, 1.0)
    usage.add("of this month", "alice", NOON_S - 20 * 86_400, 1.0)
    usage.close()
    async with budgets_of(allotment({"gpu_seconds": "5/month"}), file, noon):
        pass
    usage = UsageFile(file)
    assert usage.total_s("alice", 0.0) == 1.0
    usage.close()


async def test_past_windows_leave_memory(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/minute"}), file, noon) as budgets:
        for minute in range(50):
            await budgets.add(ALICE, f"job-{minute}", 1.0)
            noon.pass_s(60)
            await budgets.check(ALICE)
        assert len(budgets._totals) <= 4


async def test_a_budget_that_was_never_started_can_be_stopped(file: Path, noon: Clock) -> None:
    await GpuBudgets(allotment({"gpu_seconds": "100/day"}), file, clock=noon).stop()
    assert not file.exists()


@pytest.mark.parametrize(
    ("rate", "words"), [("5/2 days", "2 days"), ("5/10 second", "10 seconds"), ("5/month", "30 days")]
)
async def test_windows_are_said_in_words(file: Path, noon: Clock, rate: str, words: str) -> None:
    async with budgets_of(allotment({"gpu_seconds": rate}), file, noon) as budgets:
        (left,) = await budgets.remaining(ALICE)
    assert left.size == f"5/{words}"

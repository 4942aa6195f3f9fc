"""GPU seconds: refused when spent, renewed on time, counted once, kept over restarts and kills."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.config.limits import LimitsSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.gpu_budget import GpuBudgets
from proxy.limits.gpu_usage_db import GpuUsage
from proxy.persistence.operations import DatabaseUnavailable
from proxy.persistence.sqlite import SqliteDatabase
from proxy.persistence.sqlite_file import STATE_FILE
from tests.proxy.conftest import Clock, allotment, opened

ALICE, BOB = TenantId("alice"), TenantId("bob")
NOON_S = 20_000 * 86_400 + 43_200.0


@asynccontextmanager
async def budgets_of(limits: EffectiveLimits, file: Path, clock: Clock) -> AsyncIterator[GpuBudgets]:
    async with opened(file) as state:
        budgets = GpuBudgets(limits, state, clock=clock)
        await budgets.start()
        yield budgets


@pytest.fixture
def noon() -> Clock:
    return Clock(NOON_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / STATE_FILE


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
            other.execute("DROP TABLE gpu_usage")
        other.close()
        await budgets.add(ALICE, "1", 100.0)
        assert await is_refused(budgets, ALICE)
    assert "GPU seconds of job 1 are not in" in caplog.text


async def test_a_database_that_is_gone_as_a_window_begins_gives_nobody_free_time(
    file: Path, noon: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing runs while it is not known what is left, and what ended meanwhile is counted once, in the database or without it."""
    async with budgets_of(allotment({"gpu_seconds": "100/day"}), file, noon) as budgets:
        await budgets.add(ALICE, "1", 90.0)
        noon.pass_s(86_400)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("ALTER TABLE gpu_usage RENAME TO away")
            await budgets.add(ALICE, "2", 60.0)
            with pytest.raises(DatabaseUnavailable):
                await budgets.check(ALICE)
            other.execute("ALTER TABLE away RENAME TO gpu_usage")
        await budgets.check(ALICE, 39.0)
        assert await is_refused(budgets, ALICE, 40.0)
        await budgets.add(ALICE, "3", 39.0)
        await budgets.check(ALICE)
        await budgets.add(ALICE, "4", 1.0)
        assert await is_refused(budgets, ALICE)
    assert "GPU seconds of job 2 are not in" in caplog.text


async def test_old_rows_are_forgotten(file: Path, noon: Clock) -> None:
    async with opened(file) as state:
        usage = GpuUsage(state)
        assert await usage.add("old", "alice", NOON_S - 40 * 86_400, 1.0)
        assert await usage.add("of this month", "alice", NOON_S - 20 * 86_400, 1.0)
        assert not await usage.add("of this month", "alice", NOON_S - 20 * 86_400, 1.0)
    async with budgets_of(allotment({"gpu_seconds": "5/month"}), file, noon):
        pass
    async with opened(file) as state:
        assert await GpuUsage(state).totals_s([("alice", 0.0), ("bob", 0.0)]) == [1.0, 0.0]


async def test_past_windows_leave_memory(file: Path, noon: Clock) -> None:
    async with budgets_of(allotment({"gpu_seconds": "100/minute"}), file, noon) as budgets:
        for minute in range(50):
            await budgets.add(ALICE, f"job-{minute}", 1.0)
            noon.pass_s(60)
            await budgets.check(ALICE)
        assert len(budgets._totals) <= 4


async def test_before_the_database_is_open_usage_counts_in_memory(file: Path, noon: Clock) -> None:
    budgets = GpuBudgets(allotment({"gpu_seconds": "100/day"}), SqliteDatabase(file), clock=noon)
    await budgets.add(ALICE, "1", 100.0)
    assert await is_refused(budgets, ALICE)
    assert not file.exists()


@pytest.mark.parametrize(
    ("rate", "words"), [("5/2 days", "2 days"), ("5/10 second", "10 seconds"), ("5/month", "30 days")]
)
async def test_windows_are_said_in_words(file: Path, noon: Clock, rate: str, words: str) -> None:
    async with budgets_of(allotment({"gpu_seconds": rate}), file, noon) as budgets:
        (left,) = await budgets.remaining(ALICE)
    assert left.size == f"5/{words}"

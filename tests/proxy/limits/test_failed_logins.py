"""Failed logins: the wall for those who guess, and that it stands in nobody else's way."""

from __future__ import annotations

import asyncio
import sys

import pytest

from proxy.config.limits import LoginLimitSettings
from proxy.http.errors import LimitExceeded
from proxy.limits.failed_logins import MAX_ADDRESSES, MAX_KEY_IDS, FailedLogins
from tests.proxy.conftest import Clock

SETTINGS = LoginLimitSettings(failures="6/minute", delay=0.5, max_delay=4.0)


async def test_delays_grow_and_then_there_is_a_wall(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    assert [await logins.delay_or_refuse("203.0.113.9") for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    with pytest.raises(LimitExceeded) as caught:
        await logins.delay_or_refuse("203.0.113.9")
    assert caught.value.limit == "6 failed logins per minute of the address"
    assert caught.value.message == "Too many logins have failed. Try again in 61 s."
    assert caught.value.retry_after_s == pytest.approx(60, abs=0.01)
    clock.pass_s(71)
    assert await logins.delay_or_refuse("203.0.113.9") == 4.0


async def test_another_address_is_not_slowed(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    for _ in range(6):
        await logins.delay_or_refuse("203.0.113.9")
    assert await logins.delay_or_refuse("203.0.113.10") == 0.5


async def test_ipv6_is_counted_by_64(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    for index in range(6):
        await logins.delay_or_refuse(f"2001:db8:1:2::{index}")
    with pytest.raises(LimitExceeded):
        await logins.delay_or_refuse("2001:db8:1:2:ffff::1")
    assert await logins.delay_or_refuse("2001:db8:1:3::1") == 0.5


async def test_one_key_id_tried_from_many_addresses_meets_the_wall(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    for index in range(6):
        await logins.delay_or_refuse(f"203.0.113.{index}", "7f3a9c21")
    with pytest.raises(LimitExceeded) as caught:
        await logins.delay_or_refuse("203.0.113.99", "7f3a9c21")
    assert caught.value.limit == "6 failed logins per minute of the key id"
    assert await logins.delay_or_refuse("203.0.113.100", "00000000") == 0.5


async def test_a_key_id_may_be_any_text(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    for key_id in ("", "x" * 100_000, "\ud800", "a:b{c}\r\n"):
        await logins.delay_or_refuse("203.0.113.9", key_id)
    assert len(logins) == 5


async def test_a_flood_of_50000_from_10000_addresses_fills_a_bounded_table(clock: Clock) -> None:
    logins = FailedLogins(LoginLimitSettings(), clock=clock)

    for index in range(50_000):
        address = index % 10_000
        # Five failures of one address are no reason to refuse it yet.
        await logins.delay_or_refuse(f"198.18.{address >> 8}.{address & 255}", f"{index:08x}")
    assert len(logins) == 10_000 + MAX_KEY_IDS
    tables = [table._windows for table in (logins._addresses, logins._key_ids)]
    entries = [part for table in tables for item in table.items() for part in item]
    assert sum(map(sys.getsizeof, [*tables, *entries])) < 8 * 2**20


async def test_a_flood_from_ever_new_addresses_fills_a_bounded_table(clock: Clock) -> None:
    logins = FailedLogins(LoginLimitSettings(), clock=clock)
    for index in range(30_000):
        await logins.delay_or_refuse(f"2001:db8:{index >> 8:x}:{index & 255:x}::1")
    assert len(logins) == MAX_ADDRESSES


async def test_the_oldest_entry_goes_when_the_table_is_full(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock, max_addresses=100)
    for _ in range(3):
        await logins.delay_or_refuse("203.0.113.9")
    for index in range(99):
        await logins.delay_or_refuse(f"198.51.100.{index}")
    assert await logins.delay_or_refuse("203.0.113.9") == 4.0, "still known"
    for index in range(100):
        await logins.delay_or_refuse(f"198.51.101.{index}")
    assert await logins.delay_or_refuse("203.0.113.9") == 0.5, "forgotten"
    assert len(logins) == 100


async def test_a_failure_waits_as_long_as_it_costs(clock: Clock) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    logins = FailedLogins(SETTINGS, clock=clock, sleep=sleep)
    for _ in range(3):
        await logins.failed("203.0.113.9")
    assert slept == [0.5, 1.0, 2.0]


async def test_when_very_many_wait_the_next_is_refused_at_once(clock: Clock) -> None:
    end = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await end.wait()

    logins = FailedLogins(SETTINGS, clock=clock, sleep=sleep, max_slowed=3)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(logins.failed(f"203.0.113.{index}")) for index in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="at this moment"):
            await logins.failed("203.0.113.77")
        assert not any(task.done() for task in waiting)
        end.set()
    await logins.failed("203.0.113.78")


async def test_a_reload_changes_the_wall_and_keeps_the_count(clock: Clock) -> None:
    logins = FailedLogins(SETTINGS, clock=clock)
    for _ in range(4):
        await logins.delay_or_refuse("203.0.113.9")
    logins.apply(LoginLimitSettings(failures="4/minute"))
    with pytest.raises(LimitExceeded):
        await logins.delay_or_refuse("203.0.113.9")

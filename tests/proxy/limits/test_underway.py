"""Requests under way: of one tenant so many, of the others as many; who waits gets a place or a word."""

from __future__ import annotations

import asyncio

import pytest

from policy.principal import TenantId
from proxy.config.limits import LimitSettings, LimitsSettings
from proxy.http.errors import LimitExceeded
from proxy.limits import underway
from proxy.limits.effective_limits import EffectiveLimits
from proxy.limits.underway import WAITING_PER_PLACE, UnderWay

ALICE, BOB = TenantId("alice"), TenantId("bob")


def under_way(limit: int | None, max_connections: int = 4096) -> UnderWay:
    named = {"default": LimitSettings(concurrent_requests=limit)}
    tenants = dict.fromkeys(("alice", "bob", "carol"), "default")
    return UnderWay(EffectiveLimits(LimitsSettings(named=named), tenants), lambda: max_connections)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_next_waits_until_one_ends_and_a_neighbour_does_not() -> None:
    crowd = under_way(1)
    await crowd.enter(ALICE)
    waiting = asyncio.ensure_future(crowd.enter(ALICE))
    await settled()
    assert not waiting.done()
    await crowd.enter(BOB)
    assert crowd.running(BOB) == 1
    crowd.leave(BOB)
    crowd.leave(ALICE)
    await waiting
    assert crowd.running(ALICE) == 1
    crowd.leave(ALICE)
    assert crowd.running(ALICE) == 0


async def test_only_so_many_wait() -> None:
    crowd = under_way(1)
    await crowd.enter(ALICE)
    waiting = [asyncio.ensure_future(crowd.enter(ALICE)) for _ in range(WAITING_PER_PLACE)]
    await settled()
    with pytest.raises(LimitExceeded) as caught:
        await crowd.enter(ALICE)
    assert caught.value.reason == "too-many-requests"
    for _ in range(WAITING_PER_PLACE + 1):
        crowd.leave(ALICE)
    await asyncio.gather(*waiting)


async def test_who_waits_leaves_connections_to_others_who_wait() -> None:
    crowd = under_way(64, 4 * 20)
    waiting = []
    for tenant, may_wait in ((ALICE, 10), (BOB, 5), (TenantId("carol"), 3)):
        for _ in range(64):
            await crowd.enter(tenant)
        waiting += [asyncio.ensure_future(crowd.enter(tenant)) for _ in range(may_wait)]
        await settled()
        with pytest.raises(LimitExceeded):
            await crowd.enter(tenant)
    assert not [each for each in waiting if each.done()]
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    again = asyncio.ensure_future(crowd.enter(ALICE))
    await settled()
    crowd.leave(ALICE)
    await again


async def test_who_waited_too_long_or_left_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underway, "WAIT_S", 0.01)
    crowd = under_way(1)
    await crowd.enter(ALICE)
    with pytest.raises(LimitExceeded):
        await crowd.enter(ALICE)
    left = asyncio.ensure_future(crowd.enter(ALICE))
    await settled()
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    crowd.leave(ALICE)
    assert crowd.running(ALICE) == 0


async def test_a_place_that_comes_when_its_owner_has_left_goes_on() -> None:
    crowd = under_way(1)
    await crowd.enter(ALICE)
    first, second = (asyncio.ensure_future(crowd.enter(ALICE)) for _ in range(2))
    await settled()
    crowd.leave(ALICE)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await second
    crowd.leave(ALICE)
    assert crowd.running(ALICE) == 0


async def test_without_a_limit_nobody_waits() -> None:
    crowd = under_way(None)
    for _ in range(1000):
        await crowd.enter(ALICE)
    assert crowd.running(ALICE) == 1000


def test_a_reload_is_in_force_with_the_next_request() -> None:
    tenants = {"alice": "default"}
    limits = EffectiveLimits(LimitsSettings(named={"default": LimitSettings(concurrent_requests=1)}), tenants)
    crowd = UnderWay(limits, lambda: 4096)
    assert crowd.enter_at_once(ALICE)
    assert not crowd.enter_at_once(ALICE)
    limits.apply(LimitsSettings(named={"default": LimitSettings(concurrent_requests=2)}), tenants)
    assert crowd.enter_at_once(ALICE)
    assert not crowd.enter_at_once(ALICE)
    crowd.leave(ALICE)
    limits.apply(LimitsSettings(named={"default": LimitSettings(concurrent_requests=1)}), tenants)
    assert not crowd.enter_at_once(ALICE)
    crowd.leave(ALICE)
    assert crowd.enter_at_once(ALICE)

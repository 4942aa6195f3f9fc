"""Room for bodies: bounded in all and by tenant, waited for, given back."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress

import pytest

from policy.principal import TenantId
from proxy.http.body_memory import SURE_PART, BodyPlace, BodyRoom
from proxy.http.errors import LimitExceeded

ALICE, BOB = TenantId("alice"), TenantId("bob")


async def test_a_tenant_waits_for_its_own_room_and_nobody_elses() -> None:
    room = BodyRoom(max_bytes=200, max_tenant_bytes=50)
    with room.place(ALICE) as first, room.place(ALICE) as second, room.place(BOB) as other:
        await first.hold(40)
        await other.hold(50)
        waiting = asyncio.ensure_future(second.hold(20))
        await asyncio.sleep(0)
        assert not waiting.done()
        await first.hold(40)
        first.__exit__(None, None, None)
        await waiting
        assert room.held_bytes == 70
    assert room.held_bytes == 0


async def test_what_waits_too_long_is_refused_and_holds_nothing() -> None:
    room = BodyRoom(max_bytes=200, max_tenant_bytes=50)
    with room.place(ALICE) as first, BodyPlace(room, ALICE, wait_s=0.01) as second:
        await first.hold(50)
        with pytest.raises(LimitExceeded) as caught:
            await second.hold(1)
        assert (caught.value.reason, room.held_bytes) == ("bodies-full", 50)


async def test_all_together_are_bounded_and_there_is_room_for_one_more() -> None:
    room = BodyRoom(max_bytes=200, max_tenant_bytes=50)
    with ExitStack() as held:
        for number, share in enumerate((50, 50, 50, 25, 12, 6, 3, 2, 1)):
            place = held.enter_context(BodyPlace(room, TenantId(f"tenant{number}"), wait_s=0.01))
            await place.hold(share)
            with pytest.raises(LimitExceeded):
                await place.hold(max(share, 4) + 1)
        assert room.held_bytes < 200


async def test_a_small_body_fits_whatever_others_hold() -> None:
    room = BodyRoom(max_bytes=10 * SURE_PART, max_tenant_bytes=5 * SURE_PART)
    with ExitStack() as held:
        for number in range(40):
            place = held.enter_context(BodyPlace(room, TenantId(f"tenant{number}"), wait_s=0.01))
            with suppress(LimitExceeded):
                await place.hold(5 * SURE_PART >> max(0, number - 1))
            await place.hold(10)


async def test_one_body_alone_always_fits() -> None:
    room = BodyRoom(max_bytes=10, max_tenant_bytes=5)
    with room.place(ALICE) as place:
        await place.hold(60)
        assert room.held_bytes == 60

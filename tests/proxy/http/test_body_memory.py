"""Room for bodies: bounded in all and by tenant, waited for, given back."""

from __future__ import annotations

import asyncio

import pytest

from policy.principal import TenantId
from proxy.http.body_memory import BodyPlace, BodyRoom
from proxy.http.errors import LimitExceeded

ALICE, BOB, CAROL = TenantId("alice"), TenantId("bob"), TenantId("carol")


async def test_a_tenant_waits_for_its_own_room_and_nobody_elses() -> None:
    room = BodyRoom(max_bytes=100, max_tenant_bytes=50)
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
    room = BodyRoom(max_bytes=100, max_tenant_bytes=50)
    with room.place(ALICE) as first, BodyPlace(room, ALICE, wait_s=0.01) as second:
        await first.hold(50)
        with pytest.raises(LimitExceeded) as caught:
            await second.hold(1)
        assert (caught.value.reason, room.held_bytes) == ("bodies-full", 50)


async def test_all_together_are_bounded() -> None:
    room = BodyRoom(max_bytes=100, max_tenant_bytes=50)
    with room.place(ALICE) as first, room.place(BOB) as second, BodyPlace(room, CAROL, wait_s=0.01) as third:
        await first.hold(50)
        await second.hold(50)
        with pytest.raises(LimitExceeded):
            await third.hold(1)


async def test_one_body_alone_always_fits() -> None:
    room = BodyRoom(max_bytes=10, max_tenant_bytes=5)
    with room.place(ALICE) as place:
        await place.hold(60)
        assert room.held_bytes == 60

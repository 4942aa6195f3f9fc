"""One at a time per tenant; nothing is kept for those who want nothing."""

from __future__ import annotations

import asyncio

import pytest

from policy.principal import TenantId
from proxy.turns import Turns

ALICE, MALLORY = TenantId("alice"), TenantId("mallory")


async def test_turns_of_one_tenant_follow_one_another_in_order() -> None:
    turns, done = Turns(), []

    async def change(number: int) -> None:
        async with turns.of(ALICE):
            done.append(("begins", number))
            await asyncio.sleep(0)
            done.append(("ends", number))

    await asyncio.gather(*(change(number) for number in range(5)))
    assert done == [(what, number) for number in range(5) for what in ("begins", "ends")]
    assert is_empty(turns)


async def test_a_neighbour_is_not_waited_for() -> None:
    turns, held = Turns(), asyncio.Event()

    async def hold() -> None:
        async with turns.of(ALICE):
            held.set()
            await asyncio.get_running_loop().create_future()

    holding = asyncio.ensure_future(hold())
    await held.wait()
    async with turns.of(MALLORY):
        pass
    assert not is_empty(turns)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert is_empty(turns)


async def test_who_fails_or_gives_up_hands_the_turn_on() -> None:
    turns, held = Turns(), asyncio.Event()

    async def fail() -> None:
        async with turns.of(ALICE):
            held.set()
            await asyncio.sleep(0)
            raise LookupError

    async def wait() -> None:
        async with turns.of(ALICE):
            raise AssertionError("it was cancelled before its turn came")

    failing = asyncio.ensure_future(fail())
    await held.wait()
    waiting = asyncio.ensure_future(wait())
    last = asyncio.ensure_future(take(turns))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(LookupError):
        await failing
    assert await last
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert is_empty(turns)


async def take(turns: Turns) -> bool:
    async with turns.of(ALICE):
        return True


def is_empty(turns: Turns) -> bool:
    return not turns._locks and not turns._wanted

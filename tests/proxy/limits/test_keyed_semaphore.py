"""Turns: one at a time per holder, others unhindered, and nothing is remembered of who has gone."""

from __future__ import annotations

import asyncio

import pytest

from proxy.limits.keyed_semaphore import KeyedSemaphore


async def until_waiting(exclusive_runs: KeyedSemaphore, holder: str, wanted: int) -> None:
    while exclusive_runs._users.get(holder, 0) < wanted:
        await asyncio.sleep(0)


@pytest.mark.parametrize("places", [1, 3])
async def test_as_many_as_there_are_places(places: int) -> None:
    exclusive_runs, inside, most, go_on = KeyedSemaphore(places), 0, 0, asyncio.Event()

    async def visit() -> None:
        nonlocal inside, most
        async with exclusive_runs.of("alice"):
            inside += 1
            most = max(most, inside)
            await go_on.wait()
            inside -= 1

    visits = [asyncio.ensure_future(visit()) for _ in range(10)]
    await until_waiting(exclusive_runs, "alice", 10)
    for _ in range(20):
        await asyncio.sleep(0)
    assert inside == places
    async with exclusive_runs.of("bob"):
        assert inside == places, "bob waits for nobody"
    go_on.set()
    await asyncio.gather(*visits)
    assert (most, inside) == (places, 0)
    assert (exclusive_runs._locks, exclusive_runs._users) == ({}, {})


async def test_a_failure_inside_gives_the_place_back() -> None:
    exclusive_runs = KeyedSemaphore()
    with pytest.raises(LookupError):
        async with exclusive_runs.of("alice"):
            raise LookupError
    async with exclusive_runs.of("alice"):
        assert set(exclusive_runs._users) == {"alice"}
    assert (exclusive_runs._locks, exclusive_runs._users) == ({}, {})


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    exclusive_runs = KeyedSemaphore()

    async def visit() -> None:
        async with exclusive_runs.of("alice"):
            raise AssertionError("it was cancelled before")

    async with exclusive_runs.of("alice"):
        waiting = asyncio.ensure_future(visit())
        await until_waiting(exclusive_runs, "alice", 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert exclusive_runs._users == {"alice": 1}
    assert (exclusive_runs._locks, exclusive_runs._users) == ({}, {})

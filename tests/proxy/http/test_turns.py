"""The requests of one connection are answered one after the other, by one task, and others have their turn in between."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from proxy.http.request import Request
from tests.proxy.http.requests import served, talking
from tests.proxy.upstreams import GUARD_S

COUNT = 50
ASKED = b"GET /%d HTTP/1.1\r\nHost: gate.example\r\n\r\n"


class Told:
    """Answers without waiting for anything. of: the task and the loop's turn of each request."""

    def __init__(self, *, is_known: bool) -> None:
        self._is_known = is_known
        self._turn = 0
        self._ticking: asyncio.Handle | None = None
        self.of: list[tuple[str, asyncio.Task[None] | None, int]] = []

    async def __call__(self, request: Request) -> None:
        if self._ticking is None:
            self._tick()
        if self._is_known:
            request.prove("alice")
        self.of.append((request.raw_path, asyncio.current_task(), self._turn))
        await request.send(200, (), b"x")

    def _tick(self) -> None:
        self._turn += 1
        self._ticking = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        assert self._ticking is not None, "something was asked"
        self._ticking.cancel()


async def read_answers(reader: asyncio.StreamReader, count: int) -> None:
    for _ in range(count):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"x"


@pytest.mark.parametrize("is_known", [True, False])
async def test_who_sends_many_at_once_leaves_others_their_turn(is_known: bool) -> None:
    told = Told(is_known=is_known)
    async with served(told) as listener, talking(listener) as (reader, writer):
        writer.write(b"".join(ASKED % number for number in range(COUNT)))
        await read_answers(reader, COUNT)
        told.stop()
    assert [path for path, _, _ in told.of] == [f"/{number}" for number in range(COUNT)]
    turns = [turn for _, _, turn in told.of]
    assert all(later > earlier for earlier, later in itertools.pairwise(turns))


@pytest.mark.parametrize("is_known", [True, False])
async def test_one_task_answers_who_is_known_and_keeps_nothing_of_strangers(is_known: bool) -> None:
    told = Told(is_known=is_known)
    async with served(told) as listener:
        async with talking(listener) as (reader, writer):
            for number in range(3):
                writer.write(ASKED % number)
                await read_answers(reader, 1)
            told.stop()
            tasks = [task for _, task, _ in told.of]
            assert all(task is not None for task in tasks)
            assert (len({id(task) for task in tasks}) == 1) is is_known
            assert [task.done() for task in tasks if task is not None] == [not is_known] * 3
        async with asyncio.timeout(GUARD_S):
            await asyncio.gather(*(task for task in tasks if task is not None))

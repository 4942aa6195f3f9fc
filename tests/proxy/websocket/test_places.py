"""Who gives way when all of a tenant's WebSockets are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from policy.principal import Principal, TenantId
from proxy.http.errors import LimitExceeded
from proxy.websocket import places as module
from proxy.websocket.places import GAVE_WAY, Places
from proxy.websocket.send_queue import SendQueue
from tests.proxy.websocket.ear import Ear

ALICE, MATE, BOB = (
    Principal(key, TenantId(tenant)) for key, tenant in (("k1", "alice"), ("k2", "alice"), ("k3", "bob"))
)


class Room:
    """Places for `size` sockets in all, each held by a task that leaves when its outbox is closed."""

    def __init__(self, size: int, *, is_of_key: bool = False) -> None:
        self.size = size
        self.is_of_key = is_of_key
        self.held = 0
        self.working: dict[str, set[str]] = {}
        self.places = Places(self._slot, lambda tenant: frozenset(self.working.get(tenant, ())))
        self.now_s = 0.0
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.stubborn: set[str] = set()

    async def _slot(self, principal: Principal) -> AbstractContextManager[None]:
        if self.held >= self.size:
            error = LimitExceeded("full", limit="1", retry_after_s=5)
            error.is_of_key = self.is_of_key
            raise error
        self.held += 1
        return self._claimed()

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.held -= 1

    async def enter(self, who: Principal, name: str, client_id: str | None = None) -> SendQueue:
        self.now_s += 1
        send_queue = SendQueue(clock=lambda: self.now_s)
        is_in = asyncio.Event()

        async def stay() -> None:
            place = await self.places.take(who, client_id or name, send_queue)
            try:
                is_in.set()
                await (asyncio.Event().wait() if name in self.stubborn else Ear(send_queue).wait_for_close())
            finally:
                self.places.leave(place)

        task = self.tasks[name] = asyncio.ensure_future(stay())
        entering = asyncio.ensure_future(is_in.wait())
        await asyncio.wait((task, entering), return_when=asyncio.FIRST_COMPLETED)
        entering.cancel()
        if not is_in.is_set():
            task.result()
        return send_queue


async def gone(send_queue: SendQueue) -> bool:
    return send_queue.is_closed and send_queue.take() == GAVE_WAY


async def test_the_one_unused_for_longest_gives_way() -> None:
    room = Room(2)
    first, second = await room.enter(ALICE, "a"), await room.enter(ALICE, "b")
    first.used_at_s = 10.0
    third = await room.enter(ALICE, "c")
    assert [await gone(send_queue) for send_queue in (second,)] == [True]
    assert not first.is_closed
    assert not third.is_closed
    assert room.held == 2


async def test_who_gave_way_waits_for_a_free_place_or_for_a_job_of_its_own() -> None:
    room = Room(1)
    await room.enter(ALICE, "a")
    other = await room.enter(ALICE, "b")
    for _ in range(3):
        with pytest.raises(LimitExceeded):
            await room.enter(ALICE, "a")
    assert not other.is_closed
    room.working["alice"] = {"a"}
    again = await room.enter(ALICE, "a")
    assert await gone(other)
    with pytest.raises(LimitExceeded):
        await room.enter(ALICE, "c")
    again.close(GAVE_WAY, at_once=True)
    await room.tasks["a"]
    assert not (await room.enter(ALICE, "b")).is_closed


async def test_a_neighbours_socket_never_gives_way() -> None:
    room = Room(1)
    theirs = await room.enter(BOB, "b")
    with pytest.raises(LimitExceeded):
        await room.enter(ALICE, "a")
    with pytest.raises(LimitExceeded):
        await room.enter(ALICE, "b")
    assert not theirs.is_closed


async def test_the_same_key_gives_way_first_and_alone_where_its_own_limit_is_reached() -> None:
    room = Room(2)
    mates, own = await room.enter(MATE, "m"), await room.enter(ALICE, "a")
    await room.enter(ALICE, "b")
    assert (mates.is_closed, own.is_closed) == (False, True)
    limited = Room(1, is_of_key=True)
    await limited.enter(MATE, "m")
    with pytest.raises(LimitExceeded):
        await limited.enter(ALICE, "a")
    shared = Room(1)
    mates = await shared.enter(MATE, "m")
    await shared.enter(ALICE, "a")
    assert await gone(mates)


async def test_the_same_client_takes_over_its_own_place_also_while_it_works() -> None:
    room = Room(2)
    room.working["alice"] = {"a", "b"}
    before, other = await room.enter(ALICE, "a"), await room.enter(ALICE, "b")
    after = await room.enter(ALICE, "a-anew", client_id="a")
    assert (before.is_closed, other.is_closed, after.is_closed) == (True, False, False)


async def test_one_that_does_not_leave_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAVES_WITHIN_S", 0.01)
    room = Room(1)
    room.stubborn.add("a")
    await room.enter(ALICE, "a")
    with pytest.raises(LimitExceeded):
        await room.enter(ALICE, "b")
    room.tasks["a"].cancel()


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GAVE_WAY", 3)
    room = Room(1)
    for index in range(10):
        await room.enter(ALICE, str(index))
    assert len(room.places._gave_way) == 3

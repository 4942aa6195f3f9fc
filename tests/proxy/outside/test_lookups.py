"""Names outside are looked up in threads that nobody can end: whoever gives up waiting makes no room for more, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event
from threading import enumerate as threads
from typing import Any

import pytest

from proxy.outside.door import LOOKUPS_AT_ONCE, OutsideDoor
from proxy.outside.target import Target, Unreachable

LIMIT_S = 240.0
SLOW = "slow.test"


@dataclass
class NameServer:
    """Says nothing of one name until it may. asked: how often it was asked for that."""

    may_answer: Event = field(default_factory=Event)
    asked: int = 0

    def __call__(self, host: str, port: int, **more: Any) -> list[Any]:
        if host == SLOW:
            self.asked += 1
            assert self.may_answer.wait(LIMIT_S)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.may_answer.set()


async def _post(door: OutsideDoor, host: str, tenant: str) -> None:
    await door.post(Target(f"https://{host}/", tenant=tenant), b"", {}, LIMIT_S)


async def _give_up(door: OutsideDoor, names: NameServer, times: int) -> None:
    """Begins one after the other, and leaves it as soon as the name server was asked, or could not be any more."""
    for each in range(times):
        waiting = asyncio.ensure_future(_post(door, SLOW, "mallory"))
        async with asyncio.timeout(LIMIT_S):
            while names.asked <= min(each, LOOKUPS_AT_ONCE - 1):
                await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_who_gives_up_waiting_has_no_more_names_looked_up(names: NameServer) -> None:
    door = OutsideDoor(tuple)
    await _give_up(door, names, 40)
    assert names.asked == LOOKUPS_AT_ONCE
    with pytest.raises(Unreachable, match="its name has no address"):
        await _post(door, "quick.test", "alice")  # whom it does not hold up
    names.may_answer.set()
    with pytest.raises(Unreachable, match="its name has no address"):
        await _post(door, SLOW, "mallory")
    await door.stop()


async def test_a_door_that_closes_waits_for_no_name_server(names: NameServer) -> None:
    door = OutsideDoor(tuple)
    await _give_up(door, names, 1)
    async with asyncio.timeout(LIMIT_S / 2):
        await door.stop()
    assert [each.daemon for each in threads() if each.name == "name outside"] == [True], "the process may end"

"""The copier of several gates before one database, each of the two that it may be: each copy is made once, and none is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from policy.copies import CopyState
from proxy.copies import copier as module
from proxy.copies import copy_operations as records
from proxy.copies.copier import LEASE_S, Copier
from proxy.copies.work import Done
from proxy.jobs.copy_requests import Copy
from proxy.persistence import due_work
from proxy.persistence.operations import Database, DatabaseUnavailable
from tests.proxy.conftest import Clock
from tests.proxy.copies.test_copy_operations import copy, everything, kept


@dataclass
class Work:
    """In the place of a bucket: counts what is done, and waits where the test says so."""

    clock: Clock
    done: Counter[str] = field(default_factory=Counter)
    lost_ones: list[str] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def do(self, copy: Copy) -> Done:
        self.done[copy.copy_id] += 1
        await self.may_end.wait()
        return Done(copy._replace(state=CopyState.COPIED, copied_at_s=self.clock(), due_at_s=None), "copied")

    async def lost(self, copy: Copy) -> None:
        self.lost_ones.append(copy.copy_id)

    def may_wipe(self, copy: Copy) -> bool:
        return copy.folder == "output"


def made(database: Database, work: Work, gate: str = "gate/1", keep_s: float | None = None) -> Copier:
    return Copier(database, work, gate, lambda: keep_s, lambda: 1000.0, clock=work.clock, chance=lambda: 0.0)  # type: ignore[arg-type]


@pytest.fixture
def work() -> Work:
    return Work(Clock(1000.0))


async def test_gates_that_share_a_database_make_each_copy_once(
    make_database: Callable[[], Database], database: Database, work: Work
) -> None:
    await kept(database, *(copy(f"c{number}") for number in range(20)))
    other = make_database()
    await other.open()
    try:
        gates = [made(database, work, "gate/1"), made(other, work, "gate/2")]
        work.may_end.set()
        running = [asyncio.get_running_loop().create_task(gate.run()) for gate in gates]
        async with asyncio.timeout(240):
            while any(each.state != CopyState.COPIED for each in (await everything(database)).values()):
                await asyncio.sleep(0.01)
        for task, gate in zip(running, gates, strict=True):
            task.cancel()
            await gate.stop()
    finally:
        await other.close()
    assert work.done == Counter({f"c{number}": 1 for number in range(20)})


async def test_what_a_gate_did_not_end_is_done_by_another_when_its_claim_is_over(
    database: Database, work: Work
) -> None:
    await kept(database, copy("a"))
    first, second = made(database, work), made(database, work, "gate/2")
    await first.begin_due()
    assert await second.begin_due() > 0
    assert work.done["a"] in (0, 1)
    work.clock.pass_s(LEASE_S + 1)
    await second.begin_due()
    work.may_end.set()
    await second.finish()
    await first.finish()
    assert work.done["a"] == 2
    [found] = (await everything(database)).values()
    assert (found.state, found.gate) == (CopyState.COPIED, "")
    assert work.lost_ones == ["a"], "one of the two comes too late"


async def test_a_claim_is_renewed_while_the_work_goes_on_and_ends_it_where_it_is_lost(
    database: Database, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_EACH_S", 0.01)
    await kept(database, copy("a"))
    gate = made(database, work)
    await gate.begin_due()
    work.clock.pass_s(LEASE_S / 2)

    async def due_at_s() -> float | None:
        return (await everything(database))["a"].due_at_s

    async with asyncio.timeout(240):
        while await due_at_s() != work.clock() + LEASE_S:
            await asyncio.sleep(0.01)
    await database.run(records.release, None, work.clock())  # as if another one had taken it
    await gate.finish()
    assert (await everything(database))["a"].state == CopyState.WAITING
    assert work.lost_ones == []


async def test_a_gate_that_is_alone_takes_up_at_its_start_what_was_left(database: Database, work: Work) -> None:
    await kept(database, copy("a", gate="gone", due_at_s=5000.0))
    await made(database, work).open()
    assert ((await everything(database))["a"].gate == "") is not database.is_shared


async def test_a_database_that_is_away_is_waited_for(
    database: Database, work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await kept(database, copy("a"))
    monkeypatch.setattr(due_work, "DATABASE_PAUSE_S", 0.0)
    read, failures = database.read, iter([True, False])

    async def flaky(operation: object, *args: object) -> object:
        if operation is records.next_due and next(failures, False):
            raise DatabaseUnavailable("gone")
        return await read(operation, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "read", flaky)
    work.may_end.set()
    gate = made(database, work)
    with caplog.at_level(logging.WARNING, "comfygate"):
        task = asyncio.get_running_loop().create_task(gate.run())
        async with asyncio.timeout(240):
            while not work.done:
                await asyncio.sleep(0.01)
        task.cancel()
    await gate.stop()
    assert "copies wait for the gate's database: gone" in caplog.text


async def test_what_is_forgotten_before_it_was_made_is_told(
    database: Database, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_TENANT", 2)
    await kept(database, *(copy(f"c{number}", ended_at_s=float(number), due_at_s=9e9) for number in range(5)))
    gate = made(database, work)
    lost: list[tuple[str, int]] = []
    counted: list[object] = []
    gate._on_lost, gate._on_counted = lambda *told: lost.append(told), counted.append
    await gate.trim()
    assert lost == [("alice", 3)]
    assert counted == [{("alice", "waiting"): 2}]

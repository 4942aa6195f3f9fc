"""What tests of copies do with a gate: jobs that end, copies that come to be, and the copier in the test's own time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from policy.copies import CopyState
from proxy.copies.copier import Copier
from proxy.copies.copy_operations import listing
from proxy.jobs.copy_requests import Copy
from proxy.persistence.operations import Database
from tests.contract.driver import saving, unique
from tests.harness import Running
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.asking import ask, submitted, until

_colors = itertools.count(1)


def database_of(gate: Running) -> Database:
    return gate.gate._state


def copier_of(gate: Running) -> Copier:
    copier = gate.gate._followers.copier
    assert copier is not None, "it copies"
    return copier


@dataclass
class Ahead:
    """Time that is ahead of the machine's, as far as the test says."""

    by_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.by_s


def in_its_own_time(gate: Running) -> Ahead:
    """From now on."""
    clock, copier = Ahead(), copier_of(gate)
    copier._clock = copier._work.clock = clock
    copier._chance = lambda: 0.0
    return clock


def later(gate: Running, clock: Ahead, seconds: float) -> None:
    clock.by_s += seconds
    copier_of(gate).wake()


async def copies(gate: Running, tenant: str | None = None, *states: str) -> list[Copy]:
    return await database_of(gate).read(listing, tenant, states, 1000)


async def eventually(gate: Running, is_so: Callable[[Sequence[Copy]], bool]) -> list[Copy]:
    """Waits until this can be said of all copies there are."""
    found: list[Copy] = []
    try:
        async with asyncio.timeout(GUARD_S):
            while not is_so(found := await copies(gate)):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still: {found}") from None
    return found


async def settled(gate: Running, count: int, state: str = CopyState.COPIED) -> list[Copy]:
    """Waits until as many are so, and nobody works at one."""

    def is_so(found: Sequence[Copy]) -> bool:
        return len(found) == count and all(copy.state == state and not copy.gate for copy in found)

    return await eventually(gate, is_so)


async def made(gate: Running, prefix: str | None = None, who: str = "alice", **more: Any) -> str:
    """A job that has ended, and made what none before it did."""
    done = await submitted(gate, saving(prefix or unique(), next(_colors)), who, **more)
    await until(gate, done, "succeeded", who=who)
    return done


async def shown(gate: Running, job_id: str, who: str = "alice") -> Any:
    answer = await ask(gate, "GET", f"/gate/jobs/{job_id}", who)
    assert answer.status == 200, answer.raw
    return answer.body


async def output_of(gate: Running, job_id: str, who: str = "alice") -> Any:
    [output] = (await shown(gate, job_id, who))["outputs"]
    return output


async def read(gate: Running, url: str, who: str = "alice", **more: Any) -> bytes:
    """url: absolute, of the gate; or a path."""
    async with gate.call("GET", url.removeprefix(gate.url), who, **more) as answer:
        body = await answer.read()
        assert answer.status == 200, body
        return body

"""Who goes on asking after it was told to wait: answered late, logged by number, and no burden to anybody else."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from policy.principal import TenantId
from proxy.http.request_record import RequestRecord
from proxy.limits.brake import FREE, MAX_CALLERS, MAX_WAITING, WAITING_PER_S, Brake
from proxy.observability.access_log import RequestLog
from proxy.observability.sampling import LINES, WINDOW_S, Sampler
from proxy.observability.sampling import MAX_CALLERS as MAX_SAMPLED
from standin import StandIn
from tests.harness import running_gate
from tests.proxy.conftest import Clock, context
from tests.proxy.upstreams import GUARD_S

ALICE = TenantId("alice")


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Waits:
    """A sleep that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.longest_s = 0.0
        self.go_on = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.begun += 1
        self.longest_s = max(self.longest_s, seconds)
        await self.go_on.wait()


async def begun(tasks: list[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    """Those that still wait when all have begun."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return [task for task in tasks if not task.done()]


def refuse(brake: Brake, times: int, **who: str) -> list[asyncio.Task[None]]:
    return [asyncio.ensure_future(brake.refused(context(**who))) for _ in range(times)]


async def test_a_flood_waits_and_a_neighbour_does_not(clock: Clock) -> None:
    waits = Waits()
    brake = Brake(clock=clock, sleep=waits)
    flood = await begun(refuse(brake, FREE + 5))
    assert len(flood) == brake.waiting(ALICE) == 5
    assert await begun(refuse(brake, FREE, tenant="bob")) == []
    waits.go_on.set()
    await asyncio.gather(*flood)
    assert brake.waiting(ALICE) == 0


async def test_so_many_are_held_back_and_the_others_answered(clock: Clock) -> None:
    waits = Waits()
    brake = Brake(clock=clock, sleep=waits)
    flood = await begun(refuse(brake, 3 * MAX_WAITING))
    assert len(flood) == MAX_WAITING
    assert waits.longest_s == MAX_WAITING / WAITING_PER_S  # each connection more makes all of them slower
    flood[0].cancel()
    await asyncio.gather(flood[0], return_exceptions=True)
    assert brake.waiting(ALICE) == MAX_WAITING - 1  # a client that left gives its place back
    waits.go_on.set()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_who_heeds_retry_after_never_waits(clock: Clock) -> None:
    waits = Waits()
    brake = Brake(clock=clock, sleep=waits)
    for _ in range(5 * FREE):
        await brake.refused(context())
        clock.now_s += 1.0  # the least that Retry-After says
    assert waits.begun == 0


async def test_a_long_flood_is_forgiven_soon_and_strangers_push_out_the_oldest(clock: Clock) -> None:
    waits = Waits()
    waits.go_on.set()
    brake = Brake(clock=clock, sleep=waits)
    for _ in range(50 * FREE):
        await brake.refused(context())
    clock.now_s += FREE + 1
    before = waits.begun
    await brake.refused(context())
    assert waits.begun == before
    for number in range(MAX_CALLERS + 10):
        await brake.refused(context(subject=f"s{number}"))
    assert len(brake._callers) == MAX_CALLERS


async def test_a_refusal_of_a_flood_is_held_back_by_the_gate(
    tmp_path: Path, comfy: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '\n[limits.small]\nrequests = "3/hour"\n'
    async with running_gate(tmp_path, comfy.url, more=more) as gate, asyncio.timeout(GUARD_S):
        text = gate.config_file.read_text(encoding="utf-8")
        gate.config_file.write_text(
            text.replace("[tenants.mallory]", '[tenants.mallory]\nlimits = "small"'), encoding="utf-8"
        )
        assert await gate.gate.reload(gate.config_file)
        waits = Waits()
        brake = gate.gate._limits.brake
        monkeypatch.setattr(brake, "_sleep", waits)
        monkeypatch.setattr(brake, "_clock", Clock())
        for _ in range(FREE + 3):
            await gate.status("GET", "/system_stats", "mallory")
        held = asyncio.ensure_future(gate.status("GET", "/system_stats", "mallory"))
        while not brake.waiting(TenantId("mallory")):
            await asyncio.sleep(0)
        assert await gate.status("GET", "/system_stats", "alice") == 200
        assert not held.done()
        waits.go_on.set()
        assert await held == 429


def record(status: int = 429, **who: str) -> RequestRecord:
    found = RequestRecord("GET", "id", "127.0.0.1", principal=context(**who), status=status)
    found.reason = "rate-limited" if status == 429 else ""
    return found


def test_one_refusal_after_the_other_is_logged_by_number(clock: Clock) -> None:
    stream = io.BytesIO()
    log = RequestLog(stream, "json")
    log._sampler = Sampler(clock)
    for _ in range(LINES + 7):
        log.write(record())
    log.write(record(tenant="bob"))
    log.write(record(200))
    clock.now_s += WINDOW_S
    log.write(record())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == LINES + 3
    assert [line["left_out"] for line in lines if "left_out" in line] == [7]
    assert lines[-1]["left_out"] == 7


def test_words_for_a_terminal_tell_the_number_too(clock: Clock) -> None:
    stream = io.BytesIO()
    log = RequestLog(stream, "text")
    log._sampler = Sampler(clock)
    for _ in range(LINES + 2):
        log.write(record())
    clock.now_s += WINDOW_S
    log.write(record())
    assert b"rate-limited (and 2 more before)" in stream.getvalue()


def test_what_is_remembered_for_the_log_is_bounded(clock: Clock) -> None:
    sampler = Sampler(clock)
    for number in range(MAX_SAMPLED + 10):
        sampler.left_out(record(subject=f"s{number}"))
    assert len(sampler._callers) == MAX_SAMPLED

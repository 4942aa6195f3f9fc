"""Each loop that shall run as long as the gate: a bug in it is logged, counted, and the loop runs again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import tasks
from proxy.app import Gate
from proxy.files.quota import StorageQuota
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.limits.concurrency import ConcurrencyLimits
from proxy.limits.leases import Leases
from proxy.limits.redis_store import SharedStore
from proxy.systemd import ServiceManager
from proxy.tasks import Tasks
from standin import StandIn
from tests.harness import running_gate
from tests.proxy.conftest import allotment
from tests.proxy.upstreams import GUARD_S


class Failing:
    """A loop that has a bug when it runs first, and says when it runs again."""

    def __init__(self) -> None:
        self.calls = 0
        self.again = asyncio.Event()

    async def __call__(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        if self.calls == 1:
            raise LookupError("a bug")
        self.again.set()
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What the gate logs; and no pause before a loop runs again."""
    monkeypatch.setattr(tasks, "BACK_OFF_S", (0.0,))
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Handler()
    logger = logging.getLogger("comfygate")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def is_logged(records: list[logging.LogRecord], name: str) -> bool:
    return any(f"background task {name} failed" in record.getMessage() and record.exc_info for record in records)


@pytest.mark.parametrize(
    ("owner", "loop", "name"),
    [
        (QueueWatcher, "_watch", "observer"),
        (QueueWatcher, "_sync_on_change", "observer sync"),
        (Gate, "_close_expired", "expiry"),
        (StorageQuota, "sweep_forever", "retention"),
        (ServiceManager, "keep_alive", "watchdog"),
    ],
)
async def test_a_loop_of_the_gate_runs_again(
    comfy: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[logging.LogRecord],
    owner: type,
    loop: str,
    name: str,
) -> None:
    failing = Failing()
    monkeypatch.setattr(owner, loop, failing)
    async with asyncio.timeout(GUARD_S), running_gate(tmp_path, comfy.url, wait=False) as gate:
        await failing.again.wait()
        assert f'comfygate_task_failures_total{{task="{name}"}} 1.0' in gate.gate.metrics.render().decode()
        told = len(tasks.on_failure)
    assert is_logged(logged, name)
    assert len(tasks.on_failure) == told - 1, "a gate that stopped counts no more"


async def test_the_loops_of_the_limits_run_again(
    monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    works, leases = Failing(), Failing()
    monkeypatch.setattr(SharedStore, "_run_batches", works)
    monkeypatch.setattr(Leases, "_renew", leases)
    store = SharedStore("redis://127.0.0.1:9/0", timeout_s=0.05)
    slots = ConcurrencyLimits(allotment({}), store)
    async with asyncio.timeout(GUARD_S):
        await store.start()
        await slots.start()
        await works.again.wait()
        await leases.again.wait()
    await slots.stop()
    await store.stop()
    assert is_logged(logged, "limits store")
    assert is_logged(logged, "slot leases")


async def test_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 6:
            enough.set()
            await asyncio.get_running_loop().create_future()

    async def fail() -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    owner = Tasks()
    owner.supervise(fail, "loop")
    await enough.wait()
    await owner.stop()
    assert paused == [*tasks.BACK_OFF_S, tasks.BACK_OFF_S[-1], tasks.BACK_OFF_S[-1]]


async def test_a_loop_that_ends_by_itself_has_ended() -> None:
    async def end() -> None:
        return

    await Tasks().supervise(end, "short")

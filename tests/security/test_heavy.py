"""Large documents: beside the event loop, one at a time, tenants in turn, of bounded parts."""

from __future__ import annotations

import asyncio
import threading

import orjson
import pytest

from policy import prepared
from policy.keyform import check_document
from policy.patience import AT_ONCE_BYTES
from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.heavy_work import BYTES_PER_S, SPACED_BYTES, WAIT_S, WORK_BYTES, HeavyWork
from tests.harness import Running
from tests.matrix.world import World
from tests.proxy.conftest import Clock
from tests.proxy.upstreams import GUARD_S

ALICE, BOB = TenantId("alice"), TenantId("bob")
LARGE = WORK_BYTES + 1


@pytest.fixture
async def gate(world: World) -> Running:
    return world.running


class Bench:
    """Work in threads, that ends when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = self.most = 0
        self.go_on = threading.Semaphore(0)
        self._lock = threading.Lock()

    def work(self, name: str) -> str:
        with self._lock:
            self.begun.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
        self.go_on.acquire(timeout=GUARD_S)
        with self._lock:
            self.running -= 1
        return name

    async def has_begun(self, count: int) -> None:
        while len(self.begun) < count:
            await asyncio.sleep(0)


async def test_one_large_document_at_a_time_and_a_neighbour_waits_for_one() -> None:
    heavy, bench = HeavyWork(), Bench()
    async with asyncio.timeout(GUARD_S):
        many = [asyncio.ensure_future(heavy.run(ALICE, lambda: bench.work("alice"), LARGE)) for _ in range(4)]
        await bench.has_begun(1)
        own = asyncio.ensure_future(heavy.run(BOB, lambda: bench.work("bob"), LARGE))
        await asyncio.sleep(0)
        bench.go_on.release(5)
        assert await own == "bob"
        assert await asyncio.gather(*many) == ["alice"] * 4
    assert bench.begun.index("bob") <= 2
    assert bench.most == 1


async def test_small_work_waits_for_nobody() -> None:
    heavy, bench = HeavyWork(), Bench()
    async with asyncio.timeout(GUARD_S):
        large = asyncio.ensure_future(heavy.run(ALICE, lambda: bench.work("alice"), LARGE))
        await bench.has_begun(1)
        assert await heavy.run(BOB, threading.get_ident, WORK_BYTES) == threading.get_ident()
        bench.go_on.release()
        await large


async def test_a_turn_lasts_as_long_as_its_thread_also_when_its_client_has_left() -> None:
    heavy, bench = HeavyWork(), Bench()
    async with asyncio.timeout(GUARD_S):
        left = asyncio.ensure_future(heavy.run(ALICE, lambda: bench.work("left"), LARGE))
        await bench.has_begun(1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        later = asyncio.ensure_future(heavy.run(BOB, lambda: bench.work("later"), LARGE))
        for _ in range(10):
            await asyncio.sleep(0)
        assert bench.begun == ["left"]
        bench.go_on.release(2)
        assert await later == "later"
    assert bench.most == 1


async def test_what_goes_wrong_is_told_and_ends_the_turn() -> None:
    heavy = HeavyWork()
    with pytest.raises(ZeroDivisionError):
        await heavy.run(ALICE, lambda: 1 // 0, LARGE)
    assert await heavy.run(BOB, lambda: 1, LARGE) == 1


async def test_large_workflows_of_one_tenant_come_one_after_the_other() -> None:
    clock, slept = Clock(0.0), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    heavy = HeavyWork(clock=clock, sleep=sleep)
    for _ in range(3):
        await heavy.space(ALICE, BYTES_PER_S)
    assert slept == [1.0, 2.0]
    await heavy.space(BOB, BYTES_PER_S)
    await heavy.space(ALICE, SPACED_BYTES)
    assert slept == [1.0, 2.0]
    clock.now_s = 3.0
    await heavy.space(ALICE, BYTES_PER_S)
    assert slept == [1.0, 2.0]
    await heavy.space(ALICE, int(BYTES_PER_S * (WAIT_S + 1)))
    with pytest.raises(LimitExceeded, match="one after the other"):
        await heavy.space(ALICE, BYTES_PER_S)


def workflow(parts: int) -> bytes:
    return orjson.dumps(
        {
            "prompt": {
                "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
                "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            },
            "extra_data": {"extra_pnginfo": {"workflow": [0] * parts}},
        }
    )


async def submit(gate: Running, body: bytes) -> tuple[int, bytes]:
    async with gate.call("POST", "/prompt", "alice", data=body) as response:
        return response.status, await response.read()


async def test_a_workflow_of_too_many_parts_is_refused(gate: Running) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    gate.config_file.write_text(text.replace("[server]", "[server]\nmax_prompt_parts = 1000"), encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)
    status, answer = await submit(gate, workflow(1000))
    assert (status, b"at most 1000 values" in answer) == (400, True)
    assert (await submit(gate, workflow(900)))[0] == 200


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where workflows are read."""
    found: list[int] = []

    def check(*arguments: object) -> tuple[bytes, tuple[str, ...]]:
        found.append(threading.get_ident())
        return check_document(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prepared, "check_document", check)
    return found


async def test_a_workflow_is_read_beside_the_event_loop(gate: Running, threads: list[int]) -> None:
    """With an escape, so that it is searched for credentials: a client's `json.dumps` writes one for each letter beyond ASCII."""
    body = workflow(50_000).replace(b'"extra_pnginfo":{', b'"extra_pnginfo":{"note":"\\u00e4",')
    assert (await submit(gate, body))[0] == 200
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_what_takes_longer_than_it_looks_is_left_to_a_thread(gate: Running, threads: list[int]) -> None:
    """Inputs that no class declares cost many times what others do, and a client may send thousands in few bytes."""
    document = orjson.loads(workflow(1))
    document["prompt"]["1"]["inputs"] |= {f"{number:x}": "" for number in range(5000)}
    body = orjson.dumps(document)
    assert len(body) < AT_ONCE_BYTES
    assert (await submit(gate, body))[0] == 200
    assert [each == threading.get_ident() for each in threads] == [True, False]

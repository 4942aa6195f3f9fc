"""The short form of `make bench`: what a request costs in steps, calls and readings, and how that grows. Never in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from bench.whole import documents, programs
from bench.whole.client import Listener, ask, listen, load
from bench.whole.functions import calls, definition
from bench.whole.jobs import submits, until_waiting
from bench.whole.programs import Subject
from bench.whole.rounds import Work, quiet
from bench.whole.rows import until_connected
from policy.templates.recurring import REST

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")
Counts = dict[str, int]
TRIES = 7


@pytest.fixture(scope="module")
def object_info(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bench") / "object_info.json"
    file.write_bytes(documents.object_info())
    return file


class Counted:
    """A gate of bench.whole.counted before its stub, which tells nobody of new jobs: nothing but the request is at work."""

    def __init__(self, gate: Subject, comfy: Subject, file: Path) -> None:
        self.gate = gate
        self.comfy = comfy
        self._file = file

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Counts]:
        """What the gate did meanwhile, filled in at the end."""
        await quiet(self.gate)
        os.kill(self.gate.pid, signal.SIGUSR1)
        await asyncio.sleep(0)
        counts: Counts = {}
        yield counts
        os.kill(self.gate.pid, signal.SIGUSR1)
        while not self._file.exists():
            await quiet(self.gate)
        counts |= orjson.loads(self._file.read_bytes())
        self._file.unlink()

    async def asked(self) -> Counts:
        _, body = await ask(self.comfy, "GET", "/bench/asked")
        counts: Counts = orjson.loads(body)
        return counts

    async def notify(self) -> None:
        """ComfyUI says that its queue has changed, and the gate reads it."""
        before = await self.asked()
        await ask(self.comfy, "POST", "/bench/notify")
        while (await self.asked())["GET /api/jobs"] == before["GET /api/jobs"]:
            await asyncio.sleep(0)
        await quiet(self.gate)

    async def submit(self, nodes: int) -> Counts:
        """Counts of one submission of a workflow that came before with other values."""
        await submits(nodes, 3 * REST)(self.gate)
        return await self._least([submits(nodes, 1)] * TRIES)

    async def submit_new(self, nodes: int) -> Counts:
        """The same of one that nothing is known of."""
        await submits(nodes, 2)(self.gate)
        return await self._least([submits(nodes, 1, f"client {number}") for number in range(TRIES)])

    async def _least(self, works: Sequence[Work]) -> Counts:
        """That of the cheapest: what the gate does by the clock falls into some of them, and what each one costs is in all."""
        tries = []
        for work in works:
            async with self.counting() as counts:
                await work(self.gate)
            tries.append(counts)
        return min(tries, key=lambda counts: counts["steps"])


@asynccontextmanager
async def counted(folder: Path, object_info: Path, *, waiting: int = 0, ended: int = 0) -> AsyncIterator[Counted]:
    file = folder / f"counts-{waiting}-{ended}.json"
    with (
        programs.stub(object_info, waiting=waiting, ended=ended, is_silent=True) as comfy,
        programs.gate(comfy.url, profile=file, watched_by="counted", functions=definition()) as gate,
    ):
        await until_connected(comfy)
        await until_waiting(gate, waiting)
        yield Counted(gate, comfy, file)


async def test_a_submission(tmp_path: Path, object_info: Path) -> None:
    async with counted(tmp_path, object_info) as subject:
        new, large_new = await subject.submit_new(50), await subject.submit_new(200)
        small, large = await subject.submit(50), await subject.submit(200)
        before = await subject.asked()
        await submits(50, 3)(subject.gate)
        after = await subject.asked()
    looking = {"GET /bench/asked", "GET /api/jobs"}  # the test's, and the watcher's by the clock
    asked = {path: after[path] - before.get(path, 0) for path in after if path not in looking}
    assert set(asked.values()) == {0}, "ComfyUI has enough to do, and would surely take them: they wait in the gate"
    assert new["loads"] <= 2, "the workflow, and ComfyUI's answer"
    assert new["dumps"] <= 15, "nothing is written once for each node"
    assert large_new["steps"] <= 4.5 * new["steps"], "it grows with the workflow, and no faster"
    assert small["loads"] <= 2, "the workflow, and ComfyUI's answer"
    graph = orjson.loads(documents.prompts(50, "c", 1)[0])["prompt"]
    others = sum("seed" in node["inputs"] for node in graph.values())
    assert small["dumps"] <= 12 + others, "of the nodes those are written that have other values than the last time"
    assert large["steps"] <= 4.5 * small["steps"], "it grows with the workflow, and no faster"
    assert small["steps"] < 0.6 * new["steps"], "most of it is known"


async def test_a_history_that_was_read_is_not_asked_for_again(tmp_path: Path, object_info: Path) -> None:
    async with counted(tmp_path, object_info, ended=64) as subject:
        _, first = await ask(subject.gate, "GET", "/history")
        before = await subject.asked()
        async with subject.counting() as counts:
            _, second = await ask(subject.gate, "GET", "/history")
        after = await subject.asked()
    assert first == second
    assert len(orjson.loads(second)) == 64
    assert {path: count for path, count in after.items() if "/history" in path} == {
        path: count for path, count in before.items() if "/history" in path
    }
    assert counts["dumps"] <= 64, "the id of each; what is kept is written already"


async def test_frames_are_read_no_further_than_they_must_be(tmp_path: Path, object_info: Path) -> None:
    async with counted(tmp_path, object_info) as subject:
        client_id = "client-gate"
        listener = await listen(subject.gate, client_id)
        _, body = await ask(subject.gate, "POST", "/prompt", documents.prompts(7, client_id, 1)[0])
        prompt_id = orjson.loads(body)["prompt_id"]
        counts = {}
        for kind in ("start", "progress", "preview"):
            async with subject.counting() as seen:
                await send(subject, listener, kind, prompt_id, 10)
            counts[kind] = seen
        listener.transport.close()
    assert counts["progress"]["loads"] == counts["progress"]["dumps"] == 0
    assert counts["preview"]["loads"] <= 10, "the head of each, which names its job"
    assert counts["preview"]["dumps"] == 0


async def send(subject: Counted, listener: Listener, kind: str, prompt_id: str, count: int) -> None:
    before = listener.frames
    to = subject.gate.sent_client_id("client-gate")
    await ask(subject.comfy, "GET", f"/bench/send?to={to}&kind={kind}&prompt={prompt_id}&count={count}")
    await listener.until(before + count)


async def test_what_waits_makes_no_submission_dearer(tmp_path: Path, object_info: Path) -> None:
    steps = []
    for waiting in (1000, 5000):
        async with counted(tmp_path, object_info, waiting=waiting) as subject:
            steps.append((await subject.submit(7))["steps"])
    assert steps[1] <= 1.05 * steps[0]


async def test_what_waits_in_the_gate_makes_no_notice_of_the_queue_dearer(tmp_path: Path, object_info: Path) -> None:
    steps = []
    for waiting in (500, 2500):
        async with counted(tmp_path, object_info) as subject:
            await submits(7, waiting)(subject.gate)
            tries = []
            for _ in range(5):
                async with subject.counting() as counts:
                    await subject.notify()
                tries.append(counts["steps"])
            steps.append(min(tries))
    assert steps[1] <= 1.2 * steps[0], "five times as many"


async def test_what_waits_in_the_gate_makes_no_call_of_a_function_dearer(tmp_path: Path, object_info: Path) -> None:
    """Nor does a call cost much more than a submission of the same workflow."""
    steps = []
    async with counted(tmp_path, object_info) as subject:
        requests = calls(subject.gate)
        for more in (150, 600):
            await submits(7, more)(subject.gate)
            submitted, called = (await subject.submit(50))["steps"], []
            for _ in range(3):
                async with subject.counting() as counts:
                    await load(subject.gate, [next(requests)], 1)
                called.append(counts["steps"])
            steps.append(min(called))
            assert steps[-1] <= 1.6 * submitted
    assert steps[1] <= 1.1 * steps[0], "five times as many"

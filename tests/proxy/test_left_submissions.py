"""A client that leaves while its job is being submitted: the trail says what became of the job, once that is known."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import orjson
import pytest

from policy.call import UpstreamCall
from proxy import app
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.running_requests import is_gone
from tests.contract.driver import saving
from tests.harness import AUDIT_FILE, Running
from tests.proxy.upstreams import GUARD_S


class Held:
    """ComfyUI's answers to submissions come when the test says so, or as it says."""

    def __init__(self, gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = gate
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self._ask = gate.gate.dependencies.upstream.ask
        monkeypatch.setattr(gate.gate.dependencies.upstream, "ask", self.ask)

    async def ask(self, call: UpstreamCall, **options: Any) -> Any:
        if call.target == "/prompt":
            self.is_asked.set()
            await self.may_answer.wait()
            if self.error is not None:
                raise self.error
        return await self._ask(call, **options)

    async def leave(self, graph: Any) -> None:
        """alice submits, and leaves while ComfyUI is asked."""
        async with aiohttp.ClientSession() as session:
            call = session.post(
                self.gate.address("/prompt"), json={"prompt": graph}, headers=self.gate.headers("alice")
            )
            submitting = asyncio.ensure_future(call.__aenter__())
            await self.is_asked.wait()
            submitting.cancel()
            await asyncio.wait({submitting})
        running = self.gate.gate.pipeline.running
        async with asyncio.timeout(GUARD_S):
            while not all(request is not None and is_gone(request) for request, _ in running._requests.values()):
                await asyncio.sleep(0)
        assert await running.wait_until_idle(GUARD_S), "nobody waits for it"

    def submissions(self) -> list[dict[str, Any]]:
        lines = (self.gate.config_file.parent / AUDIT_FILE).read_bytes().splitlines()
        return [entry for entry in map(orjson.loads, lines) if entry["event"] == "submission"]

    async def submission(self) -> dict[str, Any]:
        async with asyncio.timeout(GUARD_S):
            while not (found := self.submissions()):
                await asyncio.sleep(0)
        (one,) = found
        return one


@pytest.fixture
def held(gate: Running, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(gate, monkeypatch)


async def test_a_job_that_comfyui_took_is_no_refusal(held: Held) -> None:
    await held.leave(saving("left", 1))
    assert held.submissions() == [], "not known yet"
    held.may_answer.set()
    entry = await held.submission()
    assert (entry["decision"], entry["status"], entry["tenant"]) == ("accepted", 499, "alice")
    assert await held.gate.json("GET", f"/history/{entry['prompt_id']}", "alice") != {} or await held.gate.json(
        "GET", "/queue", "alice"
    )


async def test_a_job_that_comfyui_refused_is(held: Held) -> None:
    await held.leave(
        {"1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}}}
    )
    held.may_answer.set()
    assert (await held.submission())["decision"] == "refused"


@pytest.mark.parametrize("error", [UpstreamTimeout(), UpstreamUnavailable()])
async def test_a_job_of_which_no_answer_came_may_run(held: Held, error: Exception) -> None:
    held.error = error
    await held.leave(saving("left", 1))
    held.may_answer.set()
    assert (await held.submission())["decision"] == "unknown"


async def test_also_for_a_client_that_waited(held: Held) -> None:
    held.error = UpstreamTimeout()
    held.may_answer.set()
    assert await held.gate.status("POST", "/prompt", "alice", json={"prompt": saving("left", 1)}) == 504
    assert (await held.submission())["decision"] == "unknown"


async def test_a_bug_after_the_client_left_is_logged(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("comfygate").propagate = True
    held.error = LookupError("a bug")
    await held.leave(saving("left", 1))
    held.may_answer.set()
    assert (await held.submission())["decision"] == "unknown"
    assert "failed after its client had left" in caplog.text


async def test_a_gate_that_stops_waits_for_it(held: Held) -> None:
    await held.leave(saving("left", 1))
    stopping = asyncio.ensure_future(held.gate.gate.stop())
    while not held.gate.gate.dependencies.sockets._end:
        await asyncio.sleep(0)
    held.may_answer.set()
    await stopping
    assert (await held.submission())["decision"] == "accepted"


async def test_but_not_for_ever(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DIALOGUES_END_S", 0.01)
    await held.leave(saving("left", 1))
    await held.gate.gate.stop()
    assert (await held.submission())["decision"] == "unknown"

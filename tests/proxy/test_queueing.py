"""Slots, the fair queue and budgets through the whole gate: what many prompts at once come to, and in which order ComfyUI runs them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from policy.principal import parse_tenant
from standin import StandIn
from tests.contract.driver import saving, slow
from tests.harness import Running, running_gate

GUARD_S = 240.0
SLOTS = 10


async def set_limit(gate: Running, old: str, new: str) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    assert old in text
    gate.config_file.write_text(text.replace(old, new), encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)


@asynccontextmanager
async def crowd(gate: Running, who: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that opens as many connections as it has requests."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=gate.headers(who)) as session:
        yield session


async def submit(gate: Running, session: aiohttp.ClientSession, graph: dict[str, Any]) -> tuple[int, Any]:
    async with session.post(gate.address("/prompt"), json={"prompt": graph}) as answer:
        return answer.status, orjson.loads(await answer.read())


async def prompt(gate: Running, who: str, graph: dict[str, Any]) -> str:
    answer = await gate.json("POST", "/prompt", who, json={"prompt": graph})
    return str(answer["prompt_id"])


async def limit_of(gate: Running, who: str, name: str) -> dict[str, Any]:
    view = await gate.json("GET", "/gate/me", who)
    found: dict[str, Any] = next(limit for limit in view["limits"] if name in limit["name"])
    return found


async def running_jobs(gate: Running, who: str) -> list[str]:
    queue = await gate.json("GET", "/queue", who)
    return [item[1] for item in queue["queue_running"]]


async def test_exactly_as_many_prompts_pass_as_there_are_slots(gate: Running) -> None:
    await set_limit(gate, "queued_jobs = 1000", f"queued_jobs = {SLOTS}")
    async with crowd(gate, "alice") as session, asyncio.timeout(GUARD_S):
        answers = await asyncio.gather(*(submit(gate, session, slow()) for _ in range(1000)))
        assert Counter(status for status, _ in answers) == {200: SLOTS, 429: 1000 - SLOTS}
        accepted = {answer["prompt_id"] for status, answer in answers if status == 200}
        queue = await gate.json("GET", "/queue", "alice")
        assert {item[1] for part in queue.values() for item in part} == accepted
        assert (await submit(gate, session, slow()))[0] == 429
        assert await gate.status("POST", "/prompt", "mallory", json={"prompt": saving("other")}) == 200
        await end_all(gate, "alice")
        while (await limit_of(gate, "alice", "queued"))["remaining"] != SLOTS:
            await asyncio.sleep(0.01)
        assert gate.gate.dependencies.registry.of(parse_tenant("alice")).pending() == []
        again = await asyncio.gather(*(submit(gate, session, slow()) for _ in range(SLOTS + 1)))
        assert Counter(status for status, _ in again) == {200: SLOTS, 429: 1}
        await end_all(gate, "alice")


async def end_all(gate: Running, who: str) -> None:
    """A job that ComfyUI just takes up waits no more, and is not told to run yet: it is interrupted as soon as it is."""
    assert await gate.status("POST", "/queue", who, json={"clear": True}) == 200
    while any((await gate.json("GET", "/queue", who)).values()):
        assert await gate.status("POST", "/interrupt", who, json={}) == 200
        await asyncio.sleep(0.01)


async def test_a_refused_prompt_leaves_nothing_claimed(gate: Running) -> None:
    """Also when it is ComfyUI that refuses: the slot is free at once."""
    await set_limit(gate, "queued_jobs = 1000", "queued_jobs = 1")
    broken = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
    for _ in range(3):
        assert await gate.status("POST", "/prompt", "alice", json={"prompt": broken}) == 400
    assert (await limit_of(gate, "alice", "queued"))["remaining"] == 1
    assert await gate.status("POST", "/prompt", "alice", json={"prompt": saving("whole")}) == 200


async def test_a_neighbour_runs_next_after_what_comfyui_has(gate: Running, comfy: StandIn) -> None:
    """ComfyUI has the running job and the next one; all else waits in the gate."""
    async with asyncio.timeout(GUARD_S):
        first = await prompt(gate, "alice", slow())
        while await running_jobs(gate, "alice") != [first]:
            pass
        others = [await prompt(gate, "alice", slow(0.0, 1)) for _ in range(60)]
        neighbour = await prompt(gate, "mallory", slow(0.0, 1))
        assert await gate.status("POST", "/interrupt", "alice", json={"prompt_id": first}) == 200
        while len(done := await executed(gate, comfy)) < 62:
            pass
    assert done[:3] == [first, others[0], neighbour]
    assert done[3:] == others[1:], "a tenant's own jobs stay in their order"


async def executed(gate: Running, comfy: StandIn) -> list[str]:
    """Prompt ids in the order in which ComfyUI has run them."""
    async with gate.session.get(f"{comfy.url}/history") as answer:
        return list(orjson.loads(await answer.read()))


async def test_a_spent_budget_says_when_it_renews(tmp_path: Path, comfy: StandIn) -> None:
    async with (
        running_gate(tmp_path, comfy.url, more='gpu_seconds = "1/day"') as gate,
        asyncio.timeout(GUARD_S),
    ):
        before = (await gate.json("GET", "/gate/me", "alice"))["gpu"]
        assert (before["remaining"], before["total"]) == (1, 1)
        await prompt(gate, "alice", slow(1.1, 2))
        while (await gate.json("GET", "/gate/me", "alice"))["gpu"]["remaining"] > 0:
            pass
        async with gate.call("POST", "/prompt", "alice", json={"prompt": saving("late")}) as refused:
            error = (await refused.json())["error"]
            wait_s = int(refused.headers["Retry-After"])
        assert (refused.status, error["type"]) == (429, "budget_spent")
        assert "It renews in " in error["message"]
        assert 0 < wait_s <= 86_401
        assert await gate.status("GET", "/queue", "alice") == 200
        assert await gate.status("POST", "/prompt", "mallory", json={"prompt": saving("other")}) == 200
        assert (await limit_of(gate, "alice", "queued"))["remaining"] == 1000, "the refused prompt holds no slot"

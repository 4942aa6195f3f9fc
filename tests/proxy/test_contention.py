"""Many want what is there for few, through the whole gate: a thousand prompts for ten slots, fifty jobs before one of a neighbour."""

from __future__ import annotations

import asyncio
import collections
import re
from typing import Any

import aiohttp
import orjson

from policy.principal import TenantId
from tests.contract.driver import saving, slow
from tests.harness import Running

ALICE = TenantId("alice")
FREE = 10
WANTED = 1000


async def limit_jobs(gate: Running, count: int) -> None:
    text = gate.config_file.read_text(encoding="utf-8")
    gate.config_file.write_text(re.sub(r"queued_jobs = \d+", f"queued_jobs = {count}", text), encoding="utf-8")
    assert await gate.gate.reload(gate.config_file)


async def submit(gate: Running, who: str, graph: dict[str, Any]) -> str:
    answer = await gate.json("POST", "/prompt", who, json={"prompt": graph})
    return str(answer["prompt_id"])


async def until_idle(gate: Running) -> None:
    """Until ComfyUI has nothing left and the gate has seen it."""
    while gate.gate.services.ledger.active():
        await gate.gate.services.observer.sync()


def claimed(gate: Running) -> tuple[int, int, int]:
    """Jobs that hold a slot, stand in the ledger, and have a place in the fair queue."""
    parts = gate.gate
    return parts._limits.slots.jobs_of(ALICE), len(parts.services.ledger.active()), len(parts._desk._fair)


async def test_a_thousand_prompts_at_once_take_the_ten_free_slots(gate: Running) -> None:
    await limit_jobs(gate, FREE)
    ready = asyncio.Event()
    body = orjson.dumps({"prompt": slow()})

    async def ask(session: aiohttp.ClientSession) -> tuple[int, str]:
        await ready.wait()
        async with session.post(f"{gate.url}/prompt", data=body, headers=gate.headers("alice")) as response:
            answer = await response.json()
            return response.status, "" if response.status == 200 else str(answer["error"]["type"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asking = [asyncio.ensure_future(ask(session)) for _ in range(WANTED)]
        ready.set()
        answers = collections.Counter(await asyncio.gather(*asking))
    assert answers == {(200, ""): FREE, (429, "queue_full"): WANTED - FREE}
    assert claimed(gate) == (FREE, FREE, FREE)
    queue = await gate.json("GET", "/queue", "admin")
    assert len(queue["queue_running"]) + len(queue["queue_pending"]) == FREE
    assert await gate.status("POST", "/queue", "alice", json={"clear": True}) == 200
    assert await gate.status("POST", "/interrupt", "alice", json={}) == 200
    await until_idle(gate)
    assert claimed(gate) == (0, 0, 0)
    again = await asyncio.gather(
        *(gate.status("POST", "/prompt", "alice", json={"prompt": saving(f"again{number}")}) for number in range(FREE))
    )
    assert again == [200] * FREE


async def test_a_neighbours_job_runs_next_however_many_wait(gate: Running) -> None:
    first = await submit(gate, "alice", slow())
    while not (await gate.json("GET", "/queue", "admin"))["queue_running"]:
        pass
    others = [await submit(gate, "alice", saving(f"a{number}")) for number in range(49)]
    hers = await submit(gate, "mallory", saving("b"))
    queue = await gate.json("GET", "/queue", "admin")
    assert [item[1] for item in queue["queue_running"]] == [first]
    assert [item[1] for item in sorted(queue["queue_pending"])] == [hers, *others]
    assert await gate.status("POST", "/interrupt", "alice", json={"prompt_id": first}) == 200
    await until_idle(gate)
    history = await gate.json("GET", "/history", "admin")
    assert list(history) == [first, hers, *others]
    assert list(await gate.json("GET", "/history", "mallory")) == [hers]

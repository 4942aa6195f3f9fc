"""No answer costs what a neighbour has: nobody's workflows are read for another's call, and one's own are read once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from policy.call import Place, UpstreamCall
from policy.rules import jobs
from standin import StandIn
from tests.contract.driver import slow
from tests.harness import Running, running_gate
from tests.matrix.world import World
from tests.proxy.jobs.following import ALICE, SUBMITTED
from tests.proxy.upstreams import GUARD_S, comfy_like


@pytest.fixture
async def gate(world: World) -> Running:
    return world.running


@pytest.fixture
async def asked(gate: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the gate asks ComfyUI for on behalf of its clients, and for itself."""
    calls: list[str] = []
    upstream = gate.gate.dependencies.upstream
    ask = upstream.ask

    async def noting(call: UpstreamCall, **more: Any) -> Any:
        calls.append(f"{call.method} {call.target}")
        return await ask(call, **more)

    monkeypatch.setattr(upstream, "ask", noting)
    return calls


async def until_ended(gate: Running, who: str, prompt_id: str) -> None:
    async with asyncio.timeout(GUARD_S):
        while not await gate.json("GET", f"/history/{prompt_id}", who):
            await asyncio.sleep(0.02)


async def submit(gate: Running, who: str, graph: dict[str, Any], **more: Any) -> str:
    return str((await gate.json("POST", "/prompt", who, json={"prompt": graph, **more}))["prompt_id"])


def picture(width: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


async def blocked(gate: Running) -> None:
    """A job of mallory's runs until it is interrupted."""
    await submit(gate, "mallory", slow(), extra_data={"extra_pnginfo": {"workflow": {"note": "mallory"}}})
    async with asyncio.timeout(GUARD_S):
        while not (await gate.json("GET", "/queue", "mallory"))["queue_running"]:
            await asyncio.sleep(0.02)


async def test_the_queue_and_an_interrupt_read_nobodys_workflow(gate: Running, asked: list[str]) -> None:
    await blocked(gate)
    own = await submit(gate, "alice", picture(16), client_id="tab")
    asked.clear()
    shown = await gate.json("GET", "/queue", "alice")
    assert (shown["queue_running"], [item[1] for item in shown["queue_pending"]]) == ([], [own])
    assert await gate.status("POST", "/interrupt", "alice") == 200
    assert len((await gate.json("GET", "/queue", "mallory"))["queue_running"]) == 1
    assert "GET /queue" not in asked


async def test_the_queue_shows_a_job_as_comfyui_does(gate: Running) -> None:
    await blocked(gate)
    pnginfo = {"extra_pnginfo": {"workflow": {"a": 1}}}
    own = await submit(gate, "alice", picture(24), client_id="tab", extra_data=pnginfo)
    direct = next(item for item in (await gate.json("GET", "/queue", "admin"))["queue_pending"] if item[1] == own)
    (shown,) = (await gate.json("GET", "/queue", "alice"))["queue_pending"]
    assert shown[:3] == [1, own, picture(24)]
    assert shown[3] == {"client_id": "tab", **pnginfo, "create_time": shown[3]["create_time"]}
    assert set(shown[3]) == set(direct[3])
    assert abs(shown[3]["create_time"] - direct[3]["create_time"]) < 60_000
    assert shown[4] == direct[4] == ["2"]


async def test_a_history_is_read_once_however_often_it_is_asked_for(gate: Running, asked: list[str]) -> None:
    ids = [await submit(gate, "alice", picture(8 * number)) for number in range(1, 4)]
    for prompt_id in ids:
        await until_ended(gate, "alice", prompt_id)
    while gate.gate.dependencies.registry.active():  # the gate itself reads how each ended
        await gate.gate.dependencies.queue_watchers.first.sync()
    first = await gate.json("GET", "/history", "alice")
    jobs = await gate.json("GET", "/api/jobs", "alice")
    asked.clear()
    for _ in range(5):
        assert await gate.json("GET", "/history", "alice") == first
        assert await gate.json("GET", f"/history/{ids[0]}", "alice") == {ids[0]: first[ids[0]]}
        assert await gate.json("GET", "/api/jobs", "alice") == jobs
    assert {call for call in asked if "/history" in call or "/api/jobs/" in call} == set()
    assert await gate.status("POST", "/history", "alice", json={"delete": [ids[0]]}) == 200
    assert set(await gate.json("GET", "/history", "alice")) == set(ids[1:])
    assert await gate.json("GET", f"/history/{ids[0]}", "alice") == {}


async def test_who_waits_for_a_job_uses_up_no_requests(tmp_path: Path, comfy: StandIn) -> None:
    more = '\n[limits.few]\nrequests = "5/minute"\npolls = "60/minute"\n'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        text = gate.config_file.read_text(encoding="utf-8")
        gate.config_file.write_text(
            text.replace("[tenants.mallory]", '[tenants.mallory]\nlimits = "few"'), encoding="utf-8"
        )
        assert await gate.gate.reload(gate.config_file)
        for path in ("/history", "/queue", "/prompt", "/api/jobs", "/history/x") * 5:
            assert await gate.status("GET", path, "mallory") == 200
        for _ in range(5):
            assert await gate.status("GET", "/users", "mallory") == 200
        assert await gate.status("GET", "/users", "mallory") == 429
        assert await gate.status("GET", "/history", "mallory") == 200


async def test_work_on_large_answers_is_done_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held by what is asked, not by time: the thread in which an entry of a megabyte is read is not the loop's."""
    threads: list[str] = []
    keep = jobs.keep_entry
    numbers: dict[str, float] = {}

    def noting(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return keep(*arguments)

    async def entry(request: web.BaseRequest) -> web.StreamResponse:
        prompt_id = request.path.rpartition("/")[2]
        item = [numbers[prompt_id], prompt_id, {}, {"client_id": "alice.x", "note": "x" * 1024**2}, []]
        return web.json_response({prompt_id: {"prompt": item, "outputs": {}, "status": None}})

    monkeypatch.setattr("proxy.jobs.endings.keep_entry", noting)
    async with comfy_like(entry) as url, running_gate(tmp_path, url) as gate:
        parts = gate.gate.dependencies.jobs
        job = parts.registry.claim(ALICE, None)
        await parts.records.record(job, SUBMITTED, Place.THERE)
        numbers[job.prompt_id] = job.number
        parts.registry.mark_over(job.prompt_id)
        assert job.prompt_id in await gate.json("GET", f"/history/{job.prompt_id}", "alice")
    assert threads
    assert "MainThread" not in threads

"""What a tenant does while the first ComfyUI has a job, so that it runs at the second: before two stand-ins and, where COMFYUI_URLS names two ("http://…,http://…"),
before real ones. COMFYUI_DIRECTORIES, if set: their base folders, in the same order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.contract.driver import Comfy, Graph, images_of, loading, node, opened, png, previewing, slow, unique
from tests.harness import Running, running_gate
from tests.several.world import BOTH, FIRST, SECOND, several

REAL_URLS = tuple(filter(None, os.environ.get("COMFYUI_URLS", "").split(",")))
REAL_DIRECTORIES = tuple(filter(None, os.environ.get("COMFYUI_DIRECTORIES", "").split(",")))
TARGETS = [pytest.param("standin", id="standin")]
if REAL_URLS:
    TARGETS.append(pytest.param("real", id="real", marks=pytest.mark.live))
COLOR = (10, 200, 30)
ONE_JOB = "window = 1"


@dataclass
class Day:
    """A gate before two ComfyUIs that have one job each at most, and two of its tenants."""

    gate: Running
    alice: Comfy
    mallory: Comfy

    def comfyui_of(self, prompt_id: str) -> str:
        job = self.gate.gate.dependencies.registry.job(prompt_id)
        return job.comfyui if job else ""

    @asynccontextmanager
    async def first_occupied(self) -> AsyncIterator[str]:
        """The id of alice's job that runs there."""
        async with self.alice.blocked() as prompt_id:
            assert self.comfyui_of(prompt_id) == FIRST
            yield prompt_id


@pytest.fixture(params=TARGETS)
async def day(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Day]:
    is_real = request.param == "real"
    async with AsyncExitStack() as stack:
        if is_real:
            gate = await stack.enter_async_context(running_gate(tmp_path, "", more=_tables()))
        else:
            gate = (await stack.enter_async_context(several(tmp_path, settings=dict.fromkeys(BOTH, ONE_JOB)))).gate
        clients = {}
        for who in ("alice", "mallory"):
            session = await stack.enter_async_context(aiohttp.ClientSession(headers=gate.headers(who)))
            clients[who] = Comfy(gate.url, session, (0, 33), is_real)
        yield Day(gate, **clients)


def _tables() -> str:
    lines: list[str] = []
    for number, (name, url) in enumerate(zip(BOTH, REAL_URLS, strict=True)):
        lines += ["[[comfyui]]", f'name = "{name}"', f'url = "{url}"', ONE_JOB]
        lines += [f'directory = "{REAL_DIRECTORIES[number]}"'] if REAL_DIRECTORIES else []
    return "\n".join(lines)


def keeping(name: str, prefix: str, seconds: float = 0.0, steps: int = 3) -> Graph:
    """Reads a picture, shows how far it is, and saves it as node 2."""
    return {
        "1": node("LoadImage", image=name),
        "3": node("SlowProgress", image=["1", 0], seconds=seconds, steps=steps),
        "2": node("SaveImage", images=["3", 0], filename_prefix=prefix),
    }


def named(image: dict[str, str]) -> str:
    """A file of a job, as LoadImage names it."""
    return f"{image['subfolder']}/{image['filename']} [{image['type']}]".removeprefix("/")


async def ended(client: Comfy, prompt_id: str) -> dict[str, Any]:
    """Its history entry, when it has one."""
    while True:
        history = (await client.get(f"/history/{prompt_id}")).json()
        if prompt_id in history:
            entry: dict[str, Any] = history[prompt_id]
            return entry
        await asyncio.sleep(0.05)


async def test_an_upload_is_read_there_and_what_becomes_of_it_is_seen(day: Day) -> None:
    name, prefix = f"{unique()}.png", unique()
    await day.alice.put(name, png(COLOR))
    async with day.first_occupied(), day.alice.socket() as socket, day.mallory.socket() as neighbour:
        prompt_id = await day.alice.queue(keeping(name, prefix), client_id=socket.sid)
        await socket.end_of(prompt_id)
        assert day.comfyui_of(prompt_id) == SECOND
        types = socket.types(prompt_id)
        assert types[0] == "execution_start"
        assert types.count("progress") == 3
        assert types[-2:] == ["execution_success", "executing"]
        assert socket.binary
        executed = next(each["data"] for each in socket.seen if each["type"] == "executed")
        [image] = images_of(await day.alice.history(prompt_id))
        assert executed["output"]["images"] == [image]
        shown = await day.alice.view(**image)
        assert opened(shown.body).convert("RGB").getpixel((0, 0)) == COLOR
        assert (await day.mallory.view(**image)).status == 404
        assert (await day.mallory.get(f"/history/{prompt_id}")).json() == {}
        own = await day.mallory.queue(previewing(5), client_id=neighbour.sid)
        await neighbour.end_of(own)
        assert {each["data"]["prompt_id"] for each in neighbour.seen if "prompt_id" in each["data"]} == {own}
        assert prefix not in str(neighbour.seen)
        assert not neighbour.binary


async def test_what_it_made_is_read_by_the_next_jobs_at_either(day: Day) -> None:
    name, prefix = f"{unique()}.png", unique()
    await day.alice.put(name, png(COLOR))
    async with day.first_occupied():
        made = await day.alice.run(keeping(name, prefix))
        [image] = images_of(made)
        here = await day.alice.queue(loading(named(image)))
        [preview] = images_of(await ended(day.alice, here))
        assert day.comfyui_of(here) == SECOND
        assert (await day.mallory.view(**preview)).status == 404
        seen = await day.alice.view(**preview)
        assert opened(seen.body).convert("RGB").getpixel((0, 0)) == COLOR
    async with day.alice.socket() as socket:
        busy = await day.alice.queue(keeping(named(image), prefix, 60.0, 600), client_id=socket.sid)
        await socket.event("progress", busy)
        assert day.comfyui_of(busy) == SECOND, "where its file is"
        there = await day.alice.queue(keeping(named(image), prefix))
        [again] = images_of(await ended(day.alice, there))
        assert (await day.alice.post("/interrupt", json={"prompt_id": busy})).status == 200
        await socket.end_of(busy)
    assert day.comfyui_of(there) == FIRST
    assert again["subfolder"] == ""
    assert opened((await day.alice.view(**again)).body).convert("RGB").getpixel((0, 0)) == COLOR


async def test_a_job_there_is_interrupted_and_one_that_waits_is_taken_out(day: Day) -> None:
    async with day.first_occupied() as first, day.alice.socket() as socket:
        second = await day.alice.queue(slow(), client_id=socket.sid)
        await socket.event("progress", second)
        waits = await day.alice.queue(slow(), client_id=socket.sid)
        queue = (await day.alice.get("/queue")).json()
        assert {row[1] for row in queue["queue_running"]} == {first, second}
        assert [row[1] for row in queue["queue_pending"]] == [waits]
        assert (await day.mallory.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
        states = {job["id"]: job["status"] for job in (await day.alice.get("/api/jobs?limit=1000")).json()["jobs"]}
        assert [states.get(each) for each in (first, second, waits)] == ["in_progress", "in_progress", "pending"]
        for who in (second, waits):
            await day.mallory.post("/interrupt", json={"prompt_id": who})
            await day.mallory.post("/queue", json={"delete": [who]})
        assert (await day.alice.post("/queue", json={"delete": [waits]})).status == 200
        assert (await day.alice.post("/interrupt", json={"prompt_id": second})).status == 200
        await socket.event("execution_interrupted", second)
        await ended(day.alice, second)
        assert day.comfyui_of(second) == SECOND
        queue = (await day.alice.get("/queue")).json()
        assert {row[1] for row in queue["queue_running"]} == {first}
        assert queue["queue_pending"] == []


async def test_no_name_leads_a_job_there_to_a_neighbours_files(day: Day) -> None:
    """Neither to an upload, nor to what a job of the neighbour's saved there, nor to what it only showed."""
    upload, prefix = f"{unique()}.png", unique()
    await day.alice.put(upload, png(COLOR))
    async with day.first_occupied():
        [saved] = images_of(await day.alice.run(keeping(upload, prefix)))
        [shown] = images_of(await day.alice.run(loading(upload)))
        assert await _is_read(day.alice, named(saved)), "by whoever made it"
        for file, kind in ((upload, "input"), (saved["filename"], "output"), (shown["filename"], "temp")):
            for name in _names(file):
                assert not await _is_read(day.mallory, f"{name} [{kind}]"), f"{name} [{kind}]"


def _names(file: str) -> list[str]:
    theirs = f"tenants/alice/{file}"
    return [
        *(file, theirs, f"tenants/alice/@{SECOND}/{file}", f"/{theirs}", f"../alice/@{SECOND}/{file}"),
        *(f"@{SECOND}/{file}", f"@{SECOND}/@{SECOND}/{file}", f"@{SECOND}/{theirs}", f"@{SECOND}/../../alice/@{SECOND}/{file}"),
        *(f"@{FIRST}/{file}", f"@{FIRST}/{theirs}", f"@{SECOND}//{theirs}", f"@{SECOND}\\..\\..\\alice\\{file}"),
        *(f"@{SECOND}/./{file}", f"@{SECOND}/{file} [output]"),
    ]  # fmt: skip


async def _is_read(client: Comfy, name: str) -> bool:
    """Whether a job of this client's reads it. A name is refused at once, or when the job's turn comes."""
    answer = await client.submit(loading(name))
    if answer.status in (400, 403):
        return False
    entry = await ended(client, answer.json()["prompt_id"])
    return bool(entry["status"]["status_str"] == "success")

"""Two tenants do the very same at the same time: same file names, same client ids, same workflow; and somebody uses ComfyUI beside the gate."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from tests.contract.driver import Graph, Socket, empty_image, node
from tests.matrix.people import COLORS, NUMBERS, Listener, Tenant, is_color, picture_in, told, unique
from tests.matrix.world import World

JOBS = int(os.environ.get("COMFYGATE_TWIN_JOBS", "30"))
"""Of each of the two."""
STEPS = 2
SAVED, SHOWN = "3", "4"


def photo_job(name: str) -> Graph:
    return {
        "1": node("LoadImage", image=name),
        "2": node("SlowProgress", image=["1", 0], seconds=0.0, steps=STEPS),
        SAVED: node("SaveImage", images=["2", 0], filename_prefix="demo/shot"),
        SHOWN: node("PreviewImage", images=["2", 0]),
    }


def loud_job() -> Graph:
    """Without a client id, so that ComfyUI sends its progress and previews to everybody; the size goes to everybody anyway."""
    return {
        "1": empty_image(NUMBERS["direct"]),
        "2": node("SlowProgress", image=["1", 0], seconds=0.0, steps=STEPS),
        "5": node("GetImageSize", image=["2", 0]),
        "3": node("PreviewImage", images=["2", 0]),
        "4": node("PreviewAny", source=["5", 0]),
    }


async def submit_all(tenant: Tenant, name: str, listener: Listener) -> list[str]:
    return [await tenant.queue(photo_job(name), client_id=listener.sid) for _ in range(JOBS)]


async def hear(listener: Listener, jobs: asyncio.Task[list[str]]) -> list[str]:
    """Reads from the first moment on, until all jobs of this tenant have ended; their ids."""
    ended: set[str] = set()
    while not jobs.done() or not set(jobs.result()) <= ended:
        frame = await listener.read()
        if isinstance(frame, dict) and frame["type"] == "executing" and frame["data"]["node"] is None:
            ended.add(frame["data"]["prompt_id"])
    return jobs.result()


def events_of(listener: Listener, prompt_id: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in listener.types(prompt_id):
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def check_events(tenant: Tenant, listener: Listener, prompt_ids: list[str]) -> None:
    named = {message["data"]["prompt_id"] for message in listener.seen if "prompt_id" in message["data"]}
    assert named == set(prompt_ids), f"{tenant.who} hears of its own jobs and of no others"
    for prompt_id in prompt_ids:
        counts = events_of(listener, prompt_id)
        once = {kind: counts.get(kind) for kind in ("execution_start", "execution_cached", "execution_success")}
        assert once == dict.fromkeys(once, 1), f"{prompt_id}: {counts}"
        assert counts["progress"] == STEPS
        assert counts["executed"] == 2
    pictures = [picture_in(frame) for frame in listener.binary]
    assert len(pictures) == STEPS * len(prompt_ids), "every preview comes, and nobody else's"
    assert all(picture is not None and is_color(picture, COLORS[tenant.who]) for picture in pictures)


def outputs_heard(listener: Listener, prompt_id: str) -> dict[str, Any]:
    return {
        message["data"]["node"]: message["data"]["output"]
        for message in listener.seen
        if message["type"] == "executed" and message["data"]["prompt_id"] == prompt_id
    }


async def check_outputs(tenant: Tenant, listener: Listener, prompt_ids: list[str]) -> set[tuple[str, str]]:
    """Each job's files, as history, event and job list tell them alike, are there and in the tenant's colour."""
    history = (await tenant.get("/history")).json()
    assert set(history) == set(prompt_ids)
    assert list(history) == prompt_ids, "in the order in which they were sent"
    names: set[tuple[str, str]] = set()
    for prompt_id in prompt_ids:
        entry = history[prompt_id]
        assert entry["status"]["status_str"] == "success"
        assert entry["prompt"][3]["client_id"] == listener.sid
        assert outputs_heard(listener, prompt_id) == entry["outputs"]
        for node_id, folder, subfolder in ((SAVED, "output", "demo"), (SHOWN, "temp", "")):
            (item,) = entry["outputs"][node_id]["images"]
            assert (item["type"], item["subfolder"]) == (folder, subfolder)
            answer = await tenant.file(item)
            picture = picture_in(answer.body)
            assert picture is not None, told(answer)
            assert is_color(picture, COLORS[tenant.who])
            names.add((folder, item["filename"]))
    assert len(names) == 2 * len(prompt_ids), "no file stands for two jobs"
    return names


async def go_past_the_gate(world: World, stop: asyncio.Event) -> int:
    """Jobs without a client id, one after the other."""
    done = 0
    while not stop.is_set():
        prompt_id = await world.direct.queue(loud_job())
        while not (await world.direct.get(f"/history/{prompt_id}")).json():
            await asyncio.sleep(0)
        done += 1
    return done


async def test_equal_jobs_reach_their_owners_and_nobody_else(world: World) -> None:
    """What is foreign is refused at the first byte: Tenant.inspect looks at every answer and every frame."""
    name, sid = unique("photo") + ".png", unique("sid")
    people = (world.alice, world.mallory)
    for tenant in people:
        assert (await tenant.photo(name))["name"] == name
        await tenant.post("/history", json={"clear": True})
    listeners = [await tenant.connect(sid) for tenant in people]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        direct = group.create_task(go_past_the_gate(world, stop))
        submitting = [
            group.create_task(submit_all(tenant, name, listener))
            for tenant, listener in zip(people, listeners, strict=True)
        ]
        hearing = [
            group.create_task(hear(listener, jobs)) for listener, jobs in zip(listeners, submitting, strict=True)
        ]
        prompt_ids = [await heard for heard in hearing]
        stop.set()
    assert await direct > 0, "somebody went past the gate meanwhile"
    assert not set(prompt_ids[0]) & set(prompt_ids[1])
    for tenant, listener, own in zip(people, listeners, prompt_ids, strict=True):
        check_events(tenant, listener, own)
    files = [
        await check_outputs(tenant, listener, own)
        for tenant, listener, own in zip(people, listeners, prompt_ids, strict=True)
    ]
    shown = [{name for folder, name in each if folder == "temp"} for each in files]
    assert not shown[0] & shown[1], "the temp folder is one for all, so its names differ"
    for tenant, others in zip(people, reversed(prompt_ids), strict=True):
        for prompt_id in others[:3]:
            assert (await tenant.get(f"/history/{prompt_id}")).json() == {}
    for listener in listeners:
        await listener.close()


async def test_the_neighbours_job_without_a_listener_is_not_heard(world: World) -> None:
    """A tenant that gives no client id must not broadcast, as it would in ComfyUI itself."""
    sockets: list[Socket] = [await tenant.connect(unique("sid")) for tenant in (world.alice, world.mallory)]
    name = unique("photo") + ".png"
    for tenant in (world.alice, world.mallory):
        await tenant.photo(name)
    first = await world.alice.queue(photo_job(name))
    last = await world.mallory.queue(photo_job(name), client_id=sockets[1].sid)
    await sockets[1].end_of(last)
    assert {message["data"].get("prompt_id") for message in sockets[1].seen} == {None, last}
    assert not [frame for frame in sockets[0].seen if "prompt_id" in frame["data"]]
    assert (await world.alice.history(first))["status"]["completed"]
    for socket in sockets:
        await socket.close()

"""What kills ComfyUI, sent through the gate by a tenant and by an admin: it lives, and both tenants' jobs run. Sent past the gate, it does kill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.standin import StandIn
from tests.contract.driver import Comfy, empty_image, node, previewing, slow
from tests.contract.test_deadly import _death
from tests.matrix.deadly import DEADLY, KILLING, TWIN, Deadly
from tests.matrix.people import COLORS, NUMBERS, Listener, is_color, picture_in, unique
from tests.matrix.world import World

JSON = {"Content-Type": "application/json"}


async def is_well(world: World, listeners: tuple[Listener, Listener], why: str) -> None:
    """Both tenants' jobs run and are heard, and what everybody reads is there and is JSON."""
    for tenant, listener in zip((world.alice, world.mallory), listeners, strict=True):
        prompt_id = await tenant.queue(
            {"1": empty_image(NUMBERS[tenant.who]), "2": node("PreviewImage", images=["1", 0])}, client_id=listener.sid
        )
        await listener.end_of(prompt_id)
        (item,) = (await tenant.history(prompt_id))["outputs"]["2"]["images"]
        picture = picture_in((await tenant.file(item)).body)
        assert picture is not None, why
        assert is_color(picture, COLORS[tenant.who]), why
    for who in (world.alice, world.direct):
        paths = ("/queue", "/history", "/api/jobs") if who.is_current else ("/queue", "/history")
        for path in paths:
            answer = await who.get(path)
            assert answer.status == 200, f"{why}: {path}"
            assert is_strict(answer.text()), f"{why}: {path}"
    if world.comfy is not None:
        assert (world.comfy.alive, world.comfy.worker_alive) == (True, True), why


@pytest.mark.parametrize("who", ["mallory", "admin"])
async def test_comfyui_survives_whatever_passes_the_gate(world: World, who: str) -> None:
    sender = world.mallory if who == "mallory" else world.admin
    listeners = (await world.alice.connect(unique("sid")), await world.mallory.connect(unique("sid")))
    for deadly in DEADLY:
        answer = await sender.post("/prompt", data=deadly.sent, headers=JSON)
        assert answer.status in (200, 400, 403), f"{deadly.name}: {answer.text()}"
        await is_well(world, listeners, deadly.name)
    for listener in listeners:
        await listener.close()


@pytest.mark.parametrize("who", ["mallory", "admin"])
async def test_two_jobs_with_one_id_and_one_number(world: World, who: str) -> None:
    """Both wait at the same time, which is what kills the worker."""
    sender = world.mallory if who == "mallory" else world.admin
    listeners = (await world.alice.connect(unique("sid")), await world.mallory.connect(unique("sid")))
    running = await world.alice.queue(slow(), client_id=listeners[0].sid)
    await listeners[0].event("progress", running)
    await sender.submit(previewing(0), number=-5)
    for color in (1, 2):
        answer = await sender.submit(previewing(color), number=5, prompt_id=TWIN, front=color == 2)
        assert answer.status == 200, answer.text()
    await world.alice.post("/interrupt", json={"prompt_id": running})
    await listeners[0].end_of(running)
    await is_well(world, listeners, "twins")
    for listener in listeners:
        await listener.close()


async def test_odd_frames_of_a_client_leave_its_previews_alone(world: World) -> None:
    """ComfyUI fails to preview for a client whose flags are no object; a client of the gate is told its flags all the same."""
    for frame in (
        '{"type":"feature_flags","data":[]}',
        '{"type":"feature_flags","data":"x"}',
        '{"type":"feature_flags","data":{"supports_preview_metadata":[1]}}',
        "[]",
        "not json",
        '{"type":["feature_flags"],"data":{}}',
        "5",
    ):
        listener = await world.mallory.connect(unique("sid"))
        await listener.connection.send_str(frame)
        await listener.connection.send_bytes(b"\x00\x00\x00\x01")
        graph = slow(0.0, 1) | {"1": empty_image(NUMBERS["mallory"])}
        prompt_id = await world.mallory.queue(graph, client_id=listener.sid)
        await listener.end_of(prompt_id)
        assert "execution_success" in listener.types(prompt_id), frame
        assert len(listener.binary) == 1
        await listener.close()


@pytest.mark.parametrize("deadly", [pytest.param(each, id=each.name) for each in KILLING])
async def test_past_the_gate_it_does_kill(tmp_path: Path, deadly: Deadly) -> None:
    standin = StandIn(tmp_path, frontend=False)
    await standin.start()
    async with aiohttp.ClientSession() as session:
        direct = Comfy(standin.url, session, (0, 33, 0), is_real=False)
        watcher = await direct.connect("watcher")
        answer = await direct.post("/prompt", data=deadly.sent, headers=JSON)
        assert answer.status == 200, answer.text()
        async with asyncio.timeout(30):
            await _see_harm(direct, standin, watcher, deadly)
    await standin.stop()


async def _see_harm(direct: Comfy, standin: StandIn, watcher: Any, deadly: Deadly) -> None:
    if deadly.harm == "process":
        await _death(watcher)
        assert not standin.alive
    elif deadly.harm == "worker":
        while standin.worker_alive:
            await asyncio.sleep(0)
    elif deadly.harm == "jobs":
        while not (await direct.get("/history")).json():
            assert standin.worker_alive
        assert (await direct.get("/api/jobs")).status == 500
    else:
        while all([is_strict((await direct.get(path)).text()) for path in ("/queue", "/history")]):
            assert standin.worker_alive


def is_strict(text: str) -> bool:
    """Whether a browser can read it: its JSON has no NaN."""
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"strict JSON has no {constant}")

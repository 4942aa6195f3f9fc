"""Whatever tenants and admins submit: what reaches ComfyUI holds the rule of `tests/policy/upstream_rule.py`, and everybody's jobs go on.

What is sent here is of the kinds that the rule is about, and ComfyUI itself would refuse it or take it without harm.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import orjson
import pytest

from tests.contract.driver import Comfy, empty_image, node, previewing, slow
from tests.matrix.people import COLORS, NUMBERS, Listener, is_color, picture_in, unique
from tests.matrix.world import World
from tests.policy.upstream_rule import find_breaches

JSON = {"Content-Type": "application/json"}


def _body(**fields: Any) -> bytes:
    return orjson.dumps({"prompt": previewing(11)} | fields)


def _graph(**nodes: Any) -> bytes:
    return orjson.dumps({"prompt": previewing(12) | nodes})


def _inputs(**inputs: Any) -> bytes:
    return orjson.dumps({"prompt": {"1": empty_image(13, **inputs), "2": node("PreviewImage", images=["1", 0])}})


BODIES: dict[str, bytes] = {
    "client id a number": _body(client_id=5),
    "client id true": _body(client_id=True),
    "client id null": _body(client_id=None),
    "client id empty": _body(client_id=""),
    "two client ids": _body(client_id="one", extra_data={"client_id": "other"}),
    "extra data a list": _body(extra_data=[]),
    "extra data a text": _body(extra_data="x"),
    "extra data null": _body(extra_data=None),
    "preview method unknown": _body(extra_data={"preview_method": "best"}),
    "other keys in extra data": _body(extra_data={"create_time": 5, "note": {"a": 1}}),
    "a workflow": _body(extra_data={"extra_pnginfo": {"workflow": {"id": "w", "nodes": []}, "more": 1}}),
    "number null": _body(number=None),
    "number a text": _body(number="first"),
    "front a text": _body(front="no"),
    "prompt id a number": _body(prompt_id=7),
    "prompt id in capitals": _body(prompt_id="C8111192-B372-4439-943D-F62D358EF47C"),
    "targets a number": _body(partial_execution_targets=5),
    "targets of nothing": _body(partial_execution_targets=["77"]),
    "an output without inputs": _graph(**{"9": {"class_type": "PreviewImage"}}),
    "a node without class": _graph(**{"9": {"inputs": {}}}),
    "a node null": _graph(**{"9": None}),
    "a class unknown": _graph(**{"9": node("NoSuchNode")}),
    "other keys in a node": _graph(**{"9": node("PreviewImage", images=["1", 0]) | {"note": 1}}),
    "a link to nowhere": _graph(**{"9": node("PreviewImage", images=["55", 0])}),
    "a link to no output": _graph(**{"9": node("PreviewImage", images=["1", 7])}),
    "a cycle": _graph(
        **{
            "7": node("ImageInvert", image=["8", 0]),
            "8": node("ImageInvert", image=["7", 0]),
            "9": node("PreviewImage", images=["8", 0]),
        }
    ),
    "a text for a number": _inputs(width="wide"),
    "an object for a number": _inputs(width={"a": 1}),
    "a wrapped number": _inputs(width={"__value__": 32}),
    "an input that is not declared": _inputs(zzz="x"),
    "the salt's name as an input": _inputs(comfygate_tenant="x"),
    "no graph": b'{"prompt": null}',
    "no nodes": b'{"prompt": {}}',
    "the web UI's format": b'{"prompt": {"nodes": [], "links": [], "version": 0.4}}',
    "a list": b"[]",
    "no body": b"",
    "no JSON": b"\xff\xfe{",
}


def reached(world: World) -> list[bytes]:
    """The submissions that the stand-in got; none of a real ComfyUI, which does not tell."""
    if world.comfy is None:
        return []
    return [each.body for each in world.comfy.received if each.method == "POST" and each.raw_path == "/prompt"]


def owner_of(body: bytes) -> str | None:
    """Whose submission it is by its client id; None for an admin's."""
    owner = str(json.loads(body).get("client_id", "")).partition(".")[0]
    return owner if owner in COLORS else None


async def is_well(world: World, listeners: tuple[Listener, Listener], why: str) -> None:
    """Both tenants' jobs run and are heard, and what everybody reads is there."""
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
        for path in ("/queue", "/history", "/api/jobs") if who.is_current else ("/queue", "/history"):
            answer = await who.get(path)
            assert answer.status == 200, f"{why}: {path}"
            orjson.loads(answer.body)


@pytest.mark.parametrize("who", ["mallory", "admin"])
async def test_whatever_is_submitted_what_reaches_comfyui_holds_the_rule(world: World, who: str) -> None:
    sender: Comfy = world.mallory if who == "mallory" else world.admin
    object_info = (await world.direct.get("/object_info")).json()
    listeners = (await world.alice.connect(unique("sid")), await world.mallory.connect(unique("sid")))
    for name, body in BODIES.items():
        answer = await sender.post("/prompt", data=body, headers=JSON)
        assert answer.status in (200, 400, 403), f"{name}: {answer.text()}"
    await is_well(world, listeners, "after all")
    bodies = reached(world)
    assert bodies or world.comfy is None
    for body in bodies:
        assert find_breaches(body, object_info, owner_of(body)) == [], body
    for listener in listeners:
        await listener.close()


async def test_every_job_of_tenants_has_a_place_and_an_id_of_its_own(world: World) -> None:
    """Whatever they ask for: the same number for several jobs that wait, and the id of a neighbour's job that ended."""
    listener = await world.alice.connect(unique("sid"))
    mine = str(uuid.uuid4())
    await listener.end_of(await world.alice.queue(previewing(0), client_id=listener.sid, prompt_id=mine))
    running = await world.alice.queue(slow(), client_id=listener.sid)
    await listener.event("progress", running)
    ids = {mine, running}
    for tenant in (world.alice, world.mallory):
        for fields in ({"number": 5}, {"number": 5}, {"number": 5, "front": True}):
            ids.add(await tenant.queue(previewing(len(ids)), **fields))
    ids.add(await world.mallory.queue(previewing(len(ids)), prompt_id=mine))
    assert len(ids) == 9
    await world.alice.post("/interrupt", json={"prompt_id": running})
    await listener.end_of(running)
    for tenant in (world.alice, world.mallory):
        while (await tenant.get("/prompt")).json()["exec_info"]["queue_remaining"]:
            await asyncio.sleep(0)
    if world.comfy is not None:
        documents = [json.loads(body) for body in reached(world)]
        assert len({document["number"] for document in documents}) == len(documents) >= 9
        assert {document["prompt_id"] for document in documents} == ids
    await listener.close()


async def test_odd_frames_of_a_client_leave_its_previews_alone(world: World) -> None:
    """What a client says of itself stays at the gate, which has flags of its own before ComfyUI."""
    for frame in ("[]", "not json", "5", '{"type":"hello"}', '{"type":"feature_flags"}'):
        listener = await world.mallory.connect(unique("sid"))
        await listener.connection.send_str(frame)
        await listener.connection.send_bytes(b"\x00\x00\x00\x01")
        graph = slow(0.0, 1) | {"1": empty_image(NUMBERS["mallory"])}
        prompt_id = await world.mallory.queue(graph, client_id=listener.sid)
        await listener.end_of(prompt_id)
        assert "execution_success" in listener.types(prompt_id), frame
        assert len(listener.binary) == 1
        await listener.close()

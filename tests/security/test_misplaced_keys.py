"""The credential of a caller goes nowhere but to the gate, wherever in a request it stands."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.harness import Running

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def went_on(gate: Running, secret: str) -> list[str]:
    """The calls that reached ComfyUI with it."""
    assert gate.comfy is not None
    return [
        call.raw_path
        for call in gate.comfy.received
        if secret in call.raw_path or secret.encode() in call.body or any(secret in v for v in call.headers.values())
    ]


@pytest.mark.parametrize("who", ["alice", "admin"])
@pytest.mark.parametrize("name", ["api_key_comfy_org", "auth_token_comfy_org"])
async def test_a_client_with_one_field_for_a_key_works(gate: Running, who: str, name: str) -> None:
    key = gate.keys[who]
    body = {"prompt": GRAPH, "extra_data": {name: key}}
    answer = await gate.json("POST", "/prompt", who, json=body)
    assert answer["prompt_id"]
    (notice,) = answer["notices"]
    assert notice["type"] == "credential-left-out"
    assert f"extra_data.{name}" in notice["message"]
    assert went_on(gate, key) == []


PLACES: dict[str, Any] = {
    "client_id": {"prompt": GRAPH, "client_id": "KEY"},
    "the client id in extra_data": {"prompt": GRAPH, "extra_data": {"client_id": "x-KEY"}},
    "a text of a node": {"prompt": {**GRAPH, "3": {"class_type": "PrimitiveString", "inputs": {"value": "KEY"}}}},
    "a file name": {
        "prompt": {"1": GRAPH["1"], "2": {**GRAPH["2"], "inputs": {"images": ["1", 0], "filename_prefix": "KEY"}}}
    },
    "a title": {"prompt": {**GRAPH, "1": {**GRAPH["1"], "_meta": {"title": "KEY"}}}},
    "the workflow of the web UI": {"prompt": GRAPH, "extra_data": {"extra_pnginfo": {"workflow": {"note": "KEY"}}}},
}


@pytest.mark.parametrize("who", ["alice", "admin"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_key_is_refused_wherever_it_stands(gate: Running, who: str, place: str) -> None:
    key = gate.keys[who]
    body = json.dumps(PLACES[place]).replace("KEY", key)
    answer = await gate.json("POST", "/prompt", who, data=body.encode())
    assert answer["error"]["type"] == "credential_misplaced"
    assert key not in str(answer)
    assert went_on(gate, key) == []


@pytest.mark.parametrize(
    "path", ["/ws?clientId={}", "/view?filename={}", "/view?filename=x&api_key={}", "/history/{}", "/userdata/{}.json"]
)
async def test_a_key_in_the_address_is_refused(gate: Running, path: str) -> None:
    for who in ("alice", "admin"):
        key = gate.keys[who]
        for text in (key, quote(key.replace("_", "%5f"), safe="%")):
            async with gate.call("GET", path.format(text), who) as answer:
                assert (answer.status, (await answer.json())["error"]["type"]) == (400, "credential_misplaced")
        assert went_on(gate, key) == []


@pytest.mark.parametrize("name", ["User-Agent", "Accept-Language", "Comfy-Usage-Source", "If-None-Match"])
async def test_a_key_in_a_forwarded_field_is_refused(gate: Running, name: str) -> None:
    key = gate.keys["alice"]
    async with gate.call("GET", "/features", "alice", headers={name: f"mine {key}"}) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (400, "credential_misplaced")
    assert went_on(gate, key) == []


async def test_a_key_in_a_field_that_stays_here_harms_nobody(gate: Running) -> None:
    """Browsers and clients with the key in the address name that address in Referer."""
    key = gate.keys["alice"]
    headers = {"Referer": f"{gate.url}/?token={key}", "X-Mine": key}
    assert await gate.status("GET", "/features", "alice", headers=headers) == 200
    assert went_on(gate, key) == []


async def test_a_key_in_settings_and_lists_is_refused(gate: Running) -> None:
    key = gate.keys["alice"]
    for path, body in (
        ("/settings", {"Comfy.Key": key}),
        ("/queue", {"delete": [key]}),
        ("/history", {"delete": [key]}),
    ):
        answer = await gate.json("POST", path, "alice", json=body)
        assert answer["error"]["type"] == "credential_misplaced", path
    assert went_on(gate, key) == []


@pytest.mark.parametrize(("field", "filename"), [("x", "{}.png"), ("subfolder", "x.png")])
async def test_a_key_in_an_uploads_names_is_refused(gate: Running, field: str, filename: str) -> None:
    key = gate.keys["alice"]
    form = aiohttp.FormData({field: key})
    form.add_field("image", b"\x89PNG\r\n\x1a\n" + bytes(64), filename=filename.format(key))
    answer = await gate.json("POST", "/upload/image", "alice", data=form)
    assert answer["error"]["type"] == "credential_misplaced"


async def test_the_basic_credential_counts_too(gate: Running) -> None:
    basic = base64.b64encode(f"key:{gate.keys['alice']}".encode()).decode()
    body = {"prompt": GRAPH, "client_id": basic}
    answer = await gate.json("POST", "/prompt", None, json=body, headers={"Authorization": f"Basic {basic}"})
    assert answer["error"]["type"] == "credential_misplaced"
    assert went_on(gate, basic) == []

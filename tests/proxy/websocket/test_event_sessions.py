"""The live events of tenants, over the wire: own events only, one stream per client id, and what a client that comes back gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from proxy.auth import key_file
from proxy.websocket.replay_buffer import MAX_KEPT_BYTES, MAX_KEPT_EVENTS, MAX_STATE_BYTES, ReplayBuffer
from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, comfy_like

NOWHERE = "http://127.0.0.1:9"


def graph(seconds: float = 0.0, steps: int = 2) -> dict[str, Any]:
    image = {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 7}}
    slow = {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": steps}}
    return {"1": image, "2": slow, "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}


def dial(gate: Running, who: str, client_id: str = "tab") -> Any:
    return gate.session.ws_connect(gate.address(f"/ws?clientId={client_id}"), headers=gate.headers(who), max_msg_size=0)


async def submit(gate: Running, who: str, client_id: str = "tab", **more: Any) -> str:
    answer = await gate.json("POST", "/prompt", who, json={"prompt": graph(**more), "client_id": client_id})
    return str(answer["prompt_id"])


async def read_until(socket: ClientWebSocketResponse, kind: str) -> list[dict[str, Any]]:
    """Text events up to the first of that kind."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(GUARD_S):
        while not events or events[-1]["type"] != kind:
            message = await socket.receive()
            assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
            if message.type is WSMsgType.TEXT:
                events.append(json.loads(message.data))
    return events


async def test_a_tenant_sees_its_own_job_from_start_to_end(gate: Running) -> None:
    async with dial(gate, "alice") as alice, dial(gate, "mallory") as mallory:
        prompt_id = await submit(gate, "alice")
        events = await read_until(alice, "execution_success")
        kinds = [event["type"] for event in events]
        assert kinds[0] == "status"
        assert events[0]["data"]["sid"] == "tab"
        assert {"execution_start", "executing", "progress_state", "executed", "execution_success"} <= set(kinds)
        assert {event["data"]["prompt_id"] for event in events if "prompt_id" in event["data"]} == {prompt_id}
        own = await submit(gate, "mallory")
        seen = await read_until(mallory, "execution_success")
        assert prompt_id not in str(seen)
        assert own in str(seen)


async def test_the_count_of_jobs_is_the_tenants_own(gate: Running) -> None:
    async with dial(gate, "alice") as alice, dial(gate, "mallory") as mallory:
        waiting = await submit(gate, "alice", seconds=GUARD_S)
        await read_until(alice, "execution_start")
        await submit(gate, "mallory")
        events = await read_until(mallory, "status") + await read_until(mallory, "status")
        counts = [event["data"]["status"]["exec_info"]["queue_remaining"] for event in events]
        assert max(counts) == 1
        assert await gate.status("POST", "/interrupt", "alice") == 200
        await read_until(mallory, "execution_success")
    assert await gate.status("GET", f"/history/{waiting}", "mallory") == 200


async def test_the_same_client_id_of_two_tenants_is_two(gate: Running, comfy: StandIn) -> None:
    async with dial(gate, "alice") as alice, dial(gate, "mallory") as mallory:
        await submit(gate, "alice")
        await submit(gate, "mallory")
        await read_until(alice, "execution_success")
        await read_until(mallory, "execution_success")
    ids = {call.raw_path for call in comfy.received if call.websocket and "observer" not in call.raw_path}
    assert ids == {"/ws?clientId=alice.tab", "/ws?clientId=mallory.tab"}


async def test_a_client_that_comes_back_gets_what_it_missed(gate: Running) -> None:
    first = await dial(gate, "alice")
    await submit(gate, "alice", seconds=0.3, steps=3)
    await read_until(first, "execution_start")
    await first.close()
    async with dial(gate, "mallory", "other") as other:
        # Jobs run one after the other: when mallory's runs, alice's has ended, and its events with it.
        await submit(gate, "mallory", "other")
        await read_until(other, "execution_start")
    async with dial(gate, "alice") as again:
        events = await read_until(again, "execution_success")
    kinds = [event["type"] for event in events]
    assert kinds[0] == "status"
    assert kinds.count("execution_start") == 1
    assert "executed" in kinds


async def test_a_second_socket_of_the_same_id_takes_over(gate: Running) -> None:
    first = await dial(gate, "alice")
    await read_until(first, "status")
    async with dial(gate, "alice") as second:
        await submit(gate, "alice")
        await read_until(second, "execution_success")
    # As ComfyUI does it: the first one stays open, and hears nothing any more.
    assert not first.closed
    await first.close()


async def test_feature_flags_are_answered_each_time(gate: Running, comfy: StandIn) -> None:
    flags = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'
    for _ in range(2):
        async with dial(gate, "alice") as socket:
            await socket.send_str(flags)
            events = await read_until(socket, "feature_flags")
            assert events[-1]["data"]["max_upload_size"] > 0
    assert [frame.client_id for frame in comfy.sockets_received] == ["alice.tab"] * 2


@pytest.mark.parametrize("said", ["nonsense", "[]", '{"type": "hello"}', "{}", '{"type": "feature_flags"}'])
async def test_comfyui_hears_nothing_else(gate: Running, comfy: StandIn, said: str) -> None:
    async with dial(gate, "alice") as socket:
        await socket.send_str(said)
        await socket.send_bytes(b"binary")
        await submit(gate, "alice")
        await read_until(socket, "execution_success")
    assert all(isinstance(frame.data, str) and "feature_flags" in frame.data for frame in comfy.sockets_received)
    assert "hello" not in str(comfy.sockets_received)


async def test_comfyui_that_is_down_is_an_honest_502(tmp_path: Path) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "A" * 22 + "==",
    }
    async with running_gate(tmp_path, NOWHERE, wait=False) as gate:
        for who in ("alice", "admin"):
            assert await gate.status("GET", "/ws", who, headers=headers) == 502
        assert len(gate.gate.dependencies.sockets) == 0


@asynccontextmanager
async def before_one_socket(folder: Path) -> AsyncIterator[tuple[Running, asyncio.Queue[web.WebSocketResponse]]]:
    sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()

    async def accept(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sockets.put_nowait(socket)
        await socket.receive()
        return socket

    async with comfy_like(accept) as url, running_gate(folder, url) as gate, asyncio.timeout(GUARD_S):
        yield gate, sockets


async def test_comfyui_that_goes_closes_its_tenants_1012(tmp_path: Path) -> None:
    async with before_one_socket(tmp_path) as (gate, sockets), dial(gate, "alice") as client:
        await (await sockets.get()).close()
        await read_until(client, "status")
        assert (await client.receive()).data == 1012
        async with dial(gate, "alice") as again:
            await (await sockets.get()).close()
            await read_until(again, "status")
            assert (await again.receive()).data == 1012


async def test_an_idle_tenants_socket_goes_with_its_client(tmp_path: Path) -> None:
    async with before_one_socket(tmp_path) as (gate, sockets):
        async with dial(gate, "alice"):
            upstream = await sockets.get()
        # Nothing of the tenant's runs, so nothing can be missed: ComfyUI's socket is not kept.
        async with dial(gate, "alice"):
            second = await sockets.get()
        assert upstream is not second


async def test_of_too_many_sockets_the_idle_one_gives_way_and_comes_back_as_a_429(
    tmp_path: Path, comfy: StandIn
) -> None:
    more = '[tenants.few]\nlimits = "few"\n[limits.few]\nwebsockets = 1\n'
    async with running_gate(tmp_path, comfy.url, more=more) as gate:
        headers = {"X-API-Key": key_file.create_key(gate.config_file, tenant="few").text}
        assert await gate.gate.reload(gate.config_file)
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "A" * 22 + "==",
        }
        async with gate.session.ws_connect(gate.address("/ws?clientId=a"), headers=headers) as first:
            assert (await first.receive_json())["type"] == "status"
            async with gate.session.ws_connect(gate.address("/ws?clientId=b"), headers=headers) as second:
                told = await first.receive()
                assert (told.type, told.data) == (WSMsgType.CLOSE, 4429)
                assert await gate.status("GET", "/ws?clientId=a", None, headers={**headers, **upgrade}) == 429
                assert (await second.receive_json())["type"] == "status"


def test_kept_events_are_bounded_and_begin_with_the_job() -> None:
    kept = ReplayBuffer()
    for index in range(MAX_KEPT_EVENTS + 10):
        kept.keep("executing", str(index))
    assert len(kept.texts()) == MAX_KEPT_EVENTS
    assert kept.texts()[-1] == str(MAX_KEPT_EVENTS + 9)
    kept.keep("execution_start", "start")
    assert kept.texts() == ["start"]
    for index in range(5):
        kept.keep("progress", f"progress {index}")
    kept.keep("executed", "done")
    assert kept.texts() == ["start", "progress 4", "done"]
    kept.keep("executed", "x" * MAX_KEPT_BYTES)
    assert sum(len(text) for text in kept.texts()) <= MAX_KEPT_BYTES
    for _ in range(MAX_KEPT_BYTES // MAX_STATE_BYTES + 10):
        kept.keep("progress", "x" * MAX_STATE_BYTES)
        kept.keep("progress_state", "x" * MAX_STATE_BYTES)
        kept.keep("executed", "done")
    assert MAX_KEPT_BYTES // 2 < sum(len(text) for text in kept.texts()) <= MAX_KEPT_BYTES
    assert kept.texts()[-1] == "done"

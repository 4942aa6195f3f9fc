"""E: the websocket."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from typing import Any

import aiohttp
import pytest

from .driver import Comfy, Graph, Socket, empty_image, loading, node, opened, previewing, saving, slow, unique

FLAGS = {
    "supports_preview_metadata": True,
    "supports_manager_v4_ui": True,
    "supports_progress_text_metadata": True,
}


def _steps(seconds: float = 0.0, steps: int = 2, side: int = 32) -> Graph:
    return {
        "1": empty_image(width=side, height=side),
        "2": node("SlowProgress", image=["1", 0], seconds=seconds, steps=steps),
        "3": node("PreviewImage", images=["2", 0]),
    }


async def _announce(socket: Socket, data: Any = None) -> dict[str, Any]:
    await socket.connection.send_json({"type": "feature_flags", "data": FLAGS if data is None else data})
    return await socket.event("feature_flags")


async def test_first_frame_is_status_with_the_asked_sid(comfy: Comfy) -> None:
    async with comfy.socket("my sid") as socket:
        first = socket.seen[0]
        assert first["type"] == "status"
        assert first["data"]["sid"] == "my sid"
        assert isinstance(first["data"]["status"]["exec_info"]["queue_remaining"], int)


@pytest.mark.parametrize("path", ["/ws", "/ws?clientId=", "/api/ws"])
async def test_sid_is_minted_when_none_is_asked(comfy: Comfy, path: str) -> None:
    socket = await comfy.connect("", path)
    assert len(socket.sid) == 32
    assert int(socket.sid, 16) >= 0
    await socket.close()


async def test_job_is_told_in_order(comfy: Comfy) -> None:
    prefix = unique()
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(saving(f"{prefix}/x", 61), client_id=socket.sid)
        await socket.end_of(prompt_id)
    types = [each for each in socket.types(prompt_id) if each != "progress_state"]
    # A node whose result is cached is not told of; the last "executing" has no node.
    assert types[:2] == ["execution_start", "execution_cached"]
    assert types[-4:] == ["executing", "executed", "execution_success", "executing"]
    executed = next(each["data"] for each in socket.seen if each["type"] == "executed")
    image = {"filename": "x_00001_.png", "subfolder": prefix, "type": "output"}
    assert executed == {"node": "2", "display_node": "2", "output": {"images": [image]}, "prompt_id": prompt_id}
    states = [each["data"] for each in socket.seen if each["type"] == "progress_state"]
    assert states[-1]["nodes"]["2"] == {
        "value": 1.0,
        "max": 1.0,
        "state": "finished",
        "node_id": "2",
        "prompt_id": prompt_id,
        "display_node_id": "2",
        "parent_node_id": None,
        "real_node_id": "2",
    }


async def test_status_goes_to_everybody_with_the_global_count(comfy: Comfy) -> None:
    async with comfy.socket() as watcher, comfy.blocked():
        await watcher.until(lambda each: each["type"] == "status")
        prompt_id = await comfy.queue(previewing(62), client_id="somebody else")
        status = await watcher.until(
            lambda each: each["type"] == "status" and each["data"]["status"]["exec_info"]["queue_remaining"] >= 2
        )
        assert "sid" not in status["data"]
        await comfy.post("/queue", json={"delete": [prompt_id]})


async def test_events_go_only_to_the_jobs_client(comfy: Comfy) -> None:
    async with comfy.socket() as watcher, comfy.socket() as owner:
        prompt_id = await comfy.queue(_steps(), client_id=owner.sid)
        await owner.end_of(prompt_id)
        await _announce(watcher)  # all events of the job were published before this answer
    assert watcher.types(prompt_id) == []
    assert watcher.binary == []
    assert "progress" in owner.types(prompt_id)
    assert owner.binary


async def test_job_without_client_is_broadcast_in_part(comfy: Comfy) -> None:
    async with comfy.socket() as watcher:
        prompt_id = await comfy.queue(_steps())
        await watcher.event("progress", prompt_id, value=2)
        last = await comfy.run(previewing(63))
        await _announce(watcher)
    assert last["status"]["completed"]
    assert set(watcher.types(prompt_id)) == {"progress_state", "progress"}
    assert watcher.binary[0][:8] == struct.pack(">II", 1, 1)


@pytest.mark.parametrize("client_id", ["", "nobody-has-this-sid"])
async def test_job_of_an_unknown_client_is_told_to_nobody(comfy: Comfy, client_id: str) -> None:
    async with comfy.socket() as watcher:
        prompt_id = await comfy.queue(_steps(), client_id=client_id)
        await comfy.run(previewing(64))
        await _announce(watcher)
    assert watcher.types(prompt_id) == []
    assert watcher.binary == []


async def test_progress_counts_steps(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(_steps(steps=3), client_id=socket.sid)
        await socket.end_of(prompt_id)
    progress = [each["data"] for each in socket.seen if each["type"] == "progress"]
    assert progress == [{"value": n, "max": 3, "prompt_id": prompt_id, "node": "2"} for n in (1, 2, 3)]


async def test_preview_is_event_1_without_the_flag(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(_steps(side=600), client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert len(socket.binary) == 2
    assert struct.unpack(">II", socket.binary[0][:8]) == (1, 1)
    assert opened(socket.binary[0][8:]).size == (256, 256)


async def test_preview_is_event_4_with_metadata_with_the_flag(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        flags = await _announce(socket)
        prompt_id = await comfy.queue(_steps(), client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert flags["supports_preview_metadata"] is True
    assert flags["max_upload_size"] == 104857600
    frame = socket.binary[0]
    kind, length = struct.unpack(">II", frame[:8])
    metadata = json.loads(frame[8 : 8 + length])
    assert kind == 4
    assert metadata == {
        "node_id": "2",
        "prompt_id": prompt_id,
        "display_node_id": "2",
        "parent_node_id": None,
        "real_node_id": "2",
        "image_type": "image/jpeg",
    }
    assert frame[8 + length :][:2] == b"\xff\xd8"


async def test_feature_flags_count_only_as_the_first_message(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        await socket.connection.send_str("not json")
        await socket.connection.send_str("[]")
        await socket.connection.send_bytes(b"\0\0")
        await _announce(socket)  # none of those used up the first place
        await socket.connection.send_json({"type": "feature_flags", "data": {}})
        prompt_id = await comfy.queue(_steps(), client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert [each["type"] for each in socket.seen].count("feature_flags") == 1
    assert struct.unpack(">I", socket.binary[0][:4]) == (4,)


async def test_other_first_message_uses_up_the_place(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        await socket.connection.send_json({"type": "hello"})
        await socket.connection.send_json({"type": "feature_flags", "data": FLAGS})
        prompt_id = await comfy.queue(_steps(), client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert struct.unpack(">II", socket.binary[0][:8]) == (1, 1)


async def test_features_route_equals_the_flags(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        assert (await comfy.get("/features")).json() == await _announce(socket)


async def test_error_event_equals_the_history_message(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        prompt_id = await comfy.queue(loading(""), client_id=socket.sid)
        error = await socket.event("execution_error", prompt_id)
        await socket.end_of(prompt_id)
    assert dict((await comfy.history(prompt_id))["status"]["messages"])["execution_error"] == error
    assert "execution_success" not in socket.types(prompt_id)


async def test_reconnect_is_told_the_running_node_without_prompt_id(comfy: Comfy) -> None:
    sid = unique("sid")
    async with comfy.socket(sid) as first:
        prompt_id = await comfy.queue(slow(), client_id=sid)
        await first.event("progress", prompt_id)
    async with comfy.socket(sid) as second:
        again = await second.until(lambda each: each["type"] == "executing")
        assert again["data"] == {"node": "2"}
        assert (await second.event("progress", prompt_id))["node"] == "2"  # the drop of the client did not stop it
        await comfy.post("/interrupt", json={"prompt_id": prompt_id})
        await second.end_of(prompt_id)


async def test_newer_socket_takes_over_and_the_older_hears_nothing(comfy: Comfy) -> None:
    sid = unique("sid")
    async with comfy.socket(sid) as older, comfy.socket(sid) as newer:
        prompt_id = await comfy.queue(_steps(), client_id=sid)
        await newer.end_of(prompt_id)
        assert await older.is_silent()


async def test_close_of_the_older_socket_makes_the_newer_deaf(comfy: Comfy) -> None:
    sid = unique("sid")
    older = await comfy.connect(sid)
    async with comfy.socket(sid) as newer:
        await older.close()
        prompt_id = await comfy.queue(_steps(), client_id=sid)
        await comfy.run(previewing(66))
        assert (await comfy.history(prompt_id))["status"]["completed"]
        assert await newer.is_silent()


async def test_text_is_event_3_to_everybody_without_prompt_id(comfy: Comfy) -> None:
    side = random.randrange(16, 2000)
    graph = {
        "1": empty_image(width=side),
        "the size": node("GetImageSize", image=["1", 0]),
        "3": node("PreviewAny", source=["the size", 0]),
    }
    async with comfy.socket() as watcher, comfy.socket() as owner:
        prompt_id = await comfy.queue(graph, client_id=owner.sid)
        await owner.end_of(prompt_id)
        await _announce(watcher)
    wanted = struct.pack(">II", 3, 8) + f"the sizewidth: {side}, height: 32\n batch size: 1".encode()
    assert wanted in owner.binary
    assert wanted in watcher.binary
    assert (await comfy.history(prompt_id))["outputs"]["3"] == {"text": [str(side)]}


async def test_interrupted_job_without_client_is_told_to_everybody(local: Comfy) -> None:
    async with local.socket() as watcher:
        prompt_id = await local.queue(slow())
        await watcher.event("progress", prompt_id)
        await local.post("/interrupt", json={"prompt_id": prompt_id})
        assert (await watcher.event("execution_interrupted", prompt_id))["node_id"] == "2"


async def test_websocket_images_are_full_size_pngs(local: Comfy) -> None:
    # A real ComfyUI started with --base-directory does not load this bundled custom node.
    graph = {
        "1": empty_image(67, width=700, height=300, batch_size=2),
        "2": node("SaveImageWebsocket", images=["1", 0]),
    }
    async with local.socket() as socket:
        ids = [await local.queue(graph, client_id=socket.sid) for _ in range(2)]
        await socket.end_of(ids[-1])
        entry = await local.history(ids[-1])
    assert len(socket.binary) == 4  # an output node that is never cached
    assert struct.unpack(">II", socket.binary[0][:8]) == (1, 2)
    assert opened(socket.binary[0][8:]).size == (700, 300)
    assert entry["outputs"] == {}


async def test_websocket_images_carry_metadata_with_the_flag(local: Comfy) -> None:
    graph = {"1": empty_image(67), "2": node("SaveImageWebsocket", images=["1", 0])}
    async with local.socket() as socket:
        await _announce(socket)
        prompt_id = await local.queue(graph, client_id=socket.sid)
        await socket.end_of(prompt_id)
    assert b'"image_type": "image/png"' in socket.binary[0]


async def test_message_over_the_limit_closes_the_socket(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        await socket.connection.send_str(json.dumps({"type": "x", "data": "y" * (3 * 1024 * 1024)}))
        with contextlib.suppress(ConnectionError):
            await socket.connection.send_str(json.dumps({"type": "x", "data": "y" * (5 * 1024 * 1024)}))
        closing = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        while (await socket.connection.receive(timeout=240)).type not in closing:
            pass


async def test_upgrade_with_foreign_origin_is_refused_on_loopback(comfy: Comfy) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await comfy.session.ws_connect(f"{comfy.url}/ws", origin="https://evil.example")
    assert caught.value.status == 403


async def test_logs_go_to_any_subscribed_client(comfy: Comfy) -> None:
    async with comfy.socket() as socket:
        body = {"clientId": socket.sid, "enabled": True}
        answer = await comfy.call("PATCH", "/internal/logs/subscribe", json=body)
        assert (answer.status, answer.body) == (200, b"")
        await comfy.queue(previewing(68))
        logs = await socket.until(
            lambda each: each["type"] == "logs" and any("got prompt" in entry["m"] for entry in each["data"]["entries"])
        )
        assert set(logs["data"]) == {"entries", "size"}
        assert set(logs["data"]["entries"][0]) == {"t", "m"}
        await comfy.call("PATCH", "/internal/logs/subscribe", json=body | {"enabled": False})
    unknown = {"clientId": unique(), "enabled": True}
    assert (await comfy.call("PATCH", "/internal/logs/subscribe", json=unknown)).status == 200
    assert (await comfy.call("PATCH", "/internal/logs/subscribe", json=unknown | {"clientId": []})).status == 500

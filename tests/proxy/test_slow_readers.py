"""A client that does not read its WebSocket costs a bounded amount of memory, loses previews first, and delays nobody."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from proxy.websocket import send_queue
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, comfy_like

PREVIEW = struct.pack(">II", 1, 1) + b"\xff\xd8"
CHUNK = b"x" * 65536
BOUND = 2 * 1024**2


class Talker:
    """An upstream with one socket per client id; the test says what goes to whom."""

    def __init__(self) -> None:
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.arrived = asyncio.Condition()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async with self.arrived:
            self.sockets[request.query["clientId"]] = socket
            self.arrived.notify_all()
        await socket.receive()
        return socket

    async def socket(self, client_id: str) -> web.WebSocketResponse:
        async with self.arrived:
            await self.arrived.wait_for(lambda: client_id in self.sockets)
        return self.sockets[client_id]


KEYWORDS = dict(send_queue.SendQueue.__init__.__kwdefaults__ or {})


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Running, Talker]]:
    monkeypatch.setattr(send_queue.SendQueue.__init__, "__defaults__", (BOUND, BOUND // 4))
    monkeypatch.setattr(send_queue.SendQueue.__init__, "__kwdefaults__", KEYWORDS | {"patience_s": 0.0})
    talker = Talker()
    async with comfy_like(talker) as url, running_gate(folder, url) as gate, asyncio.timeout(2 * GUARD_S):
        yield gate, talker


async def dial(gate: Running, client_id: str) -> ClientWebSocketResponse:
    target = gate.address(f"/ws?clientId={client_id}")
    return await gate.session.ws_connect(target, headers=gate.headers("admin"), max_msg_size=0)


def stop_reading(socket: ClientWebSocketResponse) -> None:
    connection = socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.pause_reading()


def go_on_reading(socket: ClientWebSocketResponse) -> None:
    connection = socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.resume_reading()


def waiting(gate: Running) -> list[send_queue.SendQueue]:
    open_ones = (socket.send_queue for socket in gate.gate.dependencies.sockets._open)
    return [each for each in open_ones if isinstance(each, send_queue.SendQueue)]


async def test_one_that_reads_nothing_is_closed_1008_and_the_others_see_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as (gate, talker):
        stuck, lively = await dial(gate, "stuck"), await dial(gate, "lively")
        stop_reading(stuck)
        to_stuck, to_lively = await talker.socket("stuck"), await talker.socket("lively")
        sent = 0
        while not any(box.ends_at_once for box in waiting(gate)) and len(waiting(gate)) == 2:
            await to_stuck.send_bytes(CHUNK)
            await to_lively.send_str(str(sent))
            assert (await lively.receive()).data == str(sent)
            assert sum(box.waiting_bytes for box in waiting(gate)) <= BOUND + len(CHUNK) + 1000
            sent += 1
            assert sent < 2000, "the gate holds everything"
        go_on_reading(stuck)
        received = 0
        while (message := await stuck.receive()).type is WSMsgType.BINARY:
            received += 1
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert str(message.extra).startswith("the client reads too slowly: ")
        assert received < sent
        await to_lively.send_str("still here")
        assert (await lively.receive()).data == "still here"
        await lively.close()


async def test_one_that_never_reads_again_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.websocket.CLOSE_LIMIT_S", 0.05)
    async with running(tmp_path, monkeypatch) as (gate, talker):
        stuck = await dial(gate, "stuck")
        stop_reading(stuck)
        to_stuck = await talker.socket("stuck")

        async def pump() -> None:
            while True:
                await to_stuck.send_bytes(CHUNK)

        # Upstream too: a socket that stayed open and undrained would hold ComfyUI's one writer for ever.
        with pytest.raises(ConnectionError):
            await pump()
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert len(gate.gate.dependencies.sockets) == 0
        stuck._response.close()


async def test_previews_go_first_and_nothing_else_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as (gate, talker):
        slow = await dial(gate, "slow")
        stop_reading(slow)
        to_slow = await talker.socket("slow")
        (box,) = waiting(gate)
        sent = 0
        while box.dropped_previews < 20:
            await to_slow.send_bytes(PREVIEW + CHUNK)
            if sent % 10 == 0:
                await to_slow.send_str(str(sent))
            sent += 1
            assert sent < 2000, "no preview is dropped"
        await to_slow.send_str("end")
        go_on_reading(slow)
        texts: list[str] = []
        previews = 0
        while not texts or texts[-1] != "end":
            message = await slow.receive()
            if message.type is WSMsgType.TEXT:
                texts.append(message.data)
            else:
                assert message.type is WSMsgType.BINARY
                previews += 1
        assert texts == [*(str(index) for index in range(0, sent, 10)), "end"]
        assert previews == sent - box.dropped_previews
        await slow.close()


async def test_a_tenant_that_reads_nothing_does_not_stall_comfyuis_events(gate: Running) -> None:
    """ComfyUI writes to one socket after the other: one that is full would stop everybody's events."""
    stuck = await gate.session.ws_connect(gate.address("/ws?clientId=stuck"), headers=gate.headers("alice"))
    lively = await gate.session.ws_connect(gate.address("/ws?clientId=lively"), headers=gate.headers("mallory"))
    stop_reading(stuck)
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 1}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    for who, client_id in (("alice", "stuck"), ("mallory", "lively")):
        answer = await gate.json("POST", "/prompt", who, json={"prompt": graph, "client_id": client_id})
        assert answer["node_errors"] == {}
    async with asyncio.timeout(GUARD_S):
        while '"execution_success"' not in str((await lively.receive()).data):
            pass
    go_on_reading(stuck)
    async with asyncio.timeout(GUARD_S):
        while '"execution_success"' not in str((await stuck.receive()).data):
            pass
    await stuck.close()
    await lively.close()

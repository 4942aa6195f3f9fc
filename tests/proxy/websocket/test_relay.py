"""WebSockets through the gate, as an admin has them: frames, closes, bounds, and clients that do not read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from proxy.websocket.client_socket import MAX_CLIENT_MESSAGE_BYTES
from proxy.websocket.connections import GATE_STOPS
from proxy.websocket.relay import sendable
from proxy.websocket.send_queue import MAX_BYTES
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, comfy_like
from tests.wire.raw import connect, request

MIB = 1024**2
Talk = Callable[[web.WebSocketResponse, web.BaseRequest], Awaitable[None]]


@asynccontextmanager
async def before(folder: Path, talk: Talk) -> AsyncIterator[Running]:
    """A gate before an upstream that accepts any WebSocket and talks to it."""

    async def accept(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, autoclose=False)
        await socket.prepare(request)
        await talk(socket, request)
        return socket

    async with comfy_like(accept) as url, running_gate(folder, url) as gate, asyncio.timeout(2 * GUARD_S):
        yield gate


def dial(gate: Running, target: str = "/ws?clientId=tab", **more: Any) -> Any:
    return gate.session.ws_connect(
        gate.address(target), **{"headers": gate.headers("admin"), "max_msg_size": 0, **more}
    )


async def echo(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)


@pytest.mark.parametrize("data", ["", "text", "ünïcödé \U0001f600", '{"type": "x"}', "x" * 200_000])
async def test_text_goes_both_ways(tmp_path: Path, data: str) -> None:
    async with before(tmp_path, echo) as gate, dial(gate) as socket:
        await socket.send_str(data)
        assert await socket.receive() == (WSMsgType.TEXT, data, "")


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytes(range(256)) * 1000, b"x" * (MAX_CLIENT_MESSAGE_BYTES - 1)])
async def test_bytes_go_both_ways(tmp_path: Path, data: bytes) -> None:
    async with before(tmp_path, echo) as gate, dial(gate) as socket:
        await socket.send_bytes(data)
        message = await socket.receive()
        assert (message.type, message.data == data) == (WSMsgType.BINARY, True)


async def test_frames_stay_in_order(tmp_path: Path) -> None:
    async with before(tmp_path, echo) as gate, dial(gate) as socket:
        sent = [str(index) if index % 2 else struct.pack(">I", index) for index in range(500)]
        for item in sent:
            await (socket.send_str(item) if isinstance(item, str) else socket.send_bytes(item))
        assert [(await socket.receive()).data for _ in sent] == sent


async def test_the_upgrade_that_arrives_is_the_gates_own(tmp_path: Path) -> None:
    seen: list[web.BaseRequest] = []

    async def note(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        seen.append(request)
        await socket.close()

    async with before(tmp_path, note) as gate:
        hostile = {"Origin": "https://evil.example", "Cookie": "a=1", "X-Forwarded-For": "1", "comfy-user": "x"}
        target = f"/api/ws?clientId=a%20b&clientId=second&x=1&token={gate.keys['admin']}"
        async with gate.session.ws_connect(gate.address(target), headers=hostile, compress=15) as socket:
            assert "Sec-WebSocket-Extensions" not in socket._response.headers
            await socket.receive()
        # A second clientId is not sent: ComfyUI takes the first, and so does the gate.
        assert seen[0].raw_path == "/ws?clientId=a%20b"
        assert {name.lower() for name in seen[0].headers} == {
            "host",
            "upgrade",
            "connection",
            "sec-websocket-version",
            "sec-websocket-key",
        }
        assert gate.keys["admin"].encode() not in gate.log.getvalue()


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (1011, "it broke"), (3000, "ü"), (4999, "x" * 123)]
)
async def test_comfyuis_close_reaches_the_client(tmp_path: Path, code: int, reason: str) -> None:
    async def close(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_str("last words")
        await socket.close(code=code, message=reason.encode())

    async with before(tmp_path, close) as gate, dial(gate) as socket:
        assert (await socket.receive()).data == "last words"
        assert await socket.receive() == (WSMsgType.CLOSE, code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3001, "ü"), (4000, "x" * 123)])
async def test_the_clients_close_reaches_comfyui(tmp_path: Path, code: int, reason: str) -> None:
    closes: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        closes.put_nowait(await socket.receive())
        await socket.close()

    async with before(tmp_path, listen) as gate:
        async with dial(gate) as socket:
            await socket.close(code=code, message=reason.encode())
        assert await closes.get() == (WSMsgType.CLOSE, code, reason)


async def test_a_client_that_vanishes_is_closed_upstream(tmp_path: Path) -> None:
    ends: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_str("hello")
        ends.put_nowait(await socket.receive())
        await socket.close()

    async with before(tmp_path, listen) as gate:
        async with dial(gate) as socket:
            await socket.receive()
            socket._response.connection.transport.abort()
            message = await ends.get()
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert len(gate.gate.dependencies.sockets) == 0


@pytest.mark.parametrize("is_abrupt", [True, False])
async def test_comfyui_that_goes_is_a_1012(tmp_path: Path, is_abrupt: bool) -> None:
    """Both a connection that breaks and one that ends without a closing handshake."""

    async def vanish(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_str("hello")
        assert request.transport is not None
        request.transport.abort() if is_abrupt else request.transport.close()

    async with before(tmp_path, vanish) as gate, dial(gate) as socket:
        assert (await socket.receive()).data == "hello"
        assert await socket.receive() == (WSMsgType.CLOSE, 1012, "ComfyUI went away")


async def test_a_picture_of_20_mib_arrives(tmp_path: Path) -> None:
    picture = struct.pack(">II", 1, 2) + b"x" * 20 * MIB

    async def send(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_bytes(picture)
        await socket.receive()

    async with before(tmp_path, send) as gate, dial(gate) as socket:
        message = await socket.receive()
        assert (message.type, message.data == picture) == (WSMsgType.BINARY, True)


async def test_a_frame_over_the_limit_never_arrives(tmp_path: Path) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        received.put_nowait(await socket.receive())
        await socket.close()

    async with before(tmp_path, listen) as gate, dial(gate) as socket:
        with suppress(ConnectionError):  # the gate need not read the rest
            await socket.send_bytes(b"x" * (MAX_CLIENT_MESSAGE_BYTES + 1))
        assert (await received.get()).type is WSMsgType.CLOSE


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (
            b"\x82\xff" + struct.pack(">Q", MAX_CLIENT_MESSAGE_BYTES + 1) + b"\x00" * 4,
            1009,
        ),  # too large, by its own word
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # a reserved bit
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # an unknown opcode
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),  # no UTF-8
        (b"\x89\xfe\x00\x80\x00\x00\x00\x00" + b"x" * 128, 1002),  # a ping that is too long
    ],
)
async def test_frames_that_are_none_end_the_socket(tmp_path: Path, frame: bytes, code: int) -> None:
    received: list[Any] = []

    async def listen(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        received.append((await socket.receive()).type)
        await socket.close()

    async with before(tmp_path, listen) as gate:
        reader, writer = await connect(gate.url)
        lines = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        head = request("/ws", gate.keys["admin"], *lines).replace(b"Connection: close", b"Connection: Upgrade")
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frame)
        answer = await reader.read()
        writer.close()
        assert answer[:1] in (b"\x88", b""), answer
        if answer:
            assert struct.unpack(">H", answer[2:4])[0] == code
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    assert WSMsgType.TEXT not in received
    assert WSMsgType.BINARY not in received


async def test_pings_are_answered_on_both_sides(tmp_path: Path) -> None:
    ponged = asyncio.Event()

    async def ping(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.ping(b"are you there")
        await socket.receive()

    async with before(tmp_path, ping) as gate, dial(gate, autoping=False) as socket:
        await socket.ping(b"and you")
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.PONG, b"and you")
        ponged.set()
    assert ponged.is_set()


async def test_the_gate_pings_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.heartbeat.PING_INTERVAL_S", 0.05)
    pinged: asyncio.Queue[Any] = asyncio.Queue()

    async def accept(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        # Answered, so that the gate does not take ComfyUI for dead before its client was pinged.
        while (message := await socket.receive()).type is WSMsgType.PING:
            pinged.put_nowait(message.type)
            await socket.pong(message.data)
        return socket

    async with (
        comfy_like(accept) as url,
        running_gate(tmp_path, url) as gate,
        asyncio.timeout(GUARD_S),
        dial(gate, autoping=False) as socket,
    ):
        assert (await socket.receive()).type is WSMsgType.PING
        assert await pinged.get() is WSMsgType.PING


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, 1000), (1001, 1001), (1011, 1011), (1014, 1014), (3000, 3000), (4999, 4999)]
    + [(code, 1000) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)],
)
def test_only_codes_that_may_be_sent_are(code: Any, expected: int) -> None:
    assert sendable(code) == expected


async def test_the_gate_that_stops_says_1001(tmp_path: Path) -> None:
    closes: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        closes.put_nowait(await socket.receive())
        await socket.close()

    async with before(tmp_path, listen) as gate, dial(gate) as socket:
        stopping = asyncio.ensure_future(gate.gate.stop())
        assert await socket.receive() == (WSMsgType.CLOSE, GATE_STOPS.code, GATE_STOPS.reason)
        await stopping
        assert (await closes.get()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)


async def test_a_revoked_key_closes_its_sockets(gate: Running) -> None:
    from proxy.auth import key_file

    async with (
        dial(gate) as socket,
        gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("alice")) as other,
    ):
        key_file.revoke_key(gate.config_file, gate.keys["admin"].split("_")[1])
        assert await gate.gate.reload(gate.config_file)
        async with asyncio.timeout(GUARD_S):
            while (message := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4401)
        assert not other.closed


async def test_a_client_that_reads_gets_what_is_larger_than_all_that_may_wait(tmp_path: Path) -> None:
    large = b"\x00\x00\x00\x01\x00\x00\x00\x02" + b"x" * (MAX_BYTES + MIB)

    async def send(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_bytes(large)
        await socket.send_str("the next")
        await socket.receive()

    async with before(tmp_path, send) as gate, dial(gate) as socket:
        assert (await socket.receive()).data == large
        assert (await socket.receive()).data == "the next"


@pytest.mark.parametrize("who", ["admin", "alice"])
async def test_an_event_that_is_too_large_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr("proxy.upstream.client.MAX_EVENT_BYTES", 1000)

    async def send(socket: web.WebSocketResponse, request: web.BaseRequest) -> None:
        await socket.send_bytes(b"x" * 1001)
        await socket.receive()

    async with before(tmp_path, send) as gate, dial(gate, headers=gate.headers(who)) as socket:
        while (told := await socket.receive()).type is WSMsgType.TEXT:  # a tenant is greeted by the gate
            pass
        assert (told.type, told.data) == (WSMsgType.CLOSE, 1009)
        assert told.extra == "ComfyUI sent an event of more than 64 MiB"

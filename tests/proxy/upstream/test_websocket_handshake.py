"""The door to ComfyUI's WebSocket: what is asked, which answers are believed, and what comes behind them."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from policy.call import Opaque, UpstreamCall
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.http.upgrade import accept_of
from proxy.http.websocket import Close
from proxy.http.websocket_frames import CLOSE, TEXT, close_payload, frame_of
from proxy.upstream import client as upstream_module
from proxy.upstream.websocket_handshake import MAX_HEAD_BYTES
from tests.proxy.http.sockets import Notes
from tests.proxy.upstream.test_client import NOWHERE, SHORT_S, door, silent
from tests.proxy.upstreams import GUARD_S, RawUpstream, saying, serving

WS = UpstreamCall("GET", (Opaque("ws"),), (("clientId", Opaque("a b")),))
FIELDS = (b"Upgrade: websocket", b"Connection: Upgrade")


def key_of(head: bytes) -> bytes:
    (key,) = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")]
    return key


def switching(
    *fields: bytes, status: bytes = b"101 Switching Protocols", key: bytes | None = None, rest: bytes = b""
) -> RawUpstream:
    """fields: beside the answer to the key. key: in place of the one that came. rest: what comes in one piece with the head."""

    async def speak(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proof = b"Sec-WebSocket-Accept: " + accept_of(key_of(head) if key is None else key)
        writer.write(b"\r\n".join((b"HTTP/1.1 " + status, *fields, proof, b"", b"")) + rest)
        await reader.read()

    return RawUpstream(speak)


def test_the_answer_of_the_rfc() -> None:
    """RFC 6455, 1.3."""
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_what_is_asked() -> None:
    async with switching(*FIELDS).run() as raw, door(raw.url) as upstream:
        first, second = await upstream.connect(WS), await upstream.connect(WS)
        head = raw.heads[0].decode()
        assert head.startswith("GET /ws?clientId=a%20b HTTP/1.1\r\nHost: 127.0.0.1:")
        assert {line.partition(":")[0] for line in head.split("\r\n")[1:] if line} == {
            "Host",
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Key",
        }
        assert key_of(raw.heads[0]) != key_of(raw.heads[1])
        first.abort()
        second.abort()


async def test_what_comes_in_one_piece_with_the_answer_is_the_sockets() -> None:
    said = frame_of(TEXT, b"hello") + frame_of(CLOSE, close_payload(1001, "bye"))
    async with switching(*FIELDS, rest=said).run() as raw, door(raw.url) as upstream:
        socket, notes = await upstream.connect(WS), Notes()
        socket.start(notes)
        await notes.ends.wait()
        assert (notes.messages, notes.end) == (["hello"], (Close(1001, "bye"), True))


async def test_events_of_any_size() -> None:
    async def large(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(b"x" * 8_000_000)
        await socket.close()
        return socket

    async with serving(large) as url, door(url) as upstream:
        socket, notes = await upstream.connect(WS), Notes()
        socket.start(notes)
        await notes.ends.wait()
        assert ([len(data) for data in notes.messages], notes.end) == ([8_000_000], (Close(1000, ""), True))


@pytest.mark.parametrize(
    "raw",
    [
        saying(b""),
        saying(b"x\r\n\r\n"),
        saying(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        saying(b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:9/ws\r\nContent-Length: 0\r\n\r\n"),
        saying(b"HTTP/1.1 101 X\r\n\r\n"),
        saying(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        switching(*FIELDS, key=b"dGhlIHNhbXBsZSBub25jZQ=="),
        switching(*FIELDS, status=b"200 OK"),
        switching(b"Upgrade: h2c", b"Connection: Upgrade"),
        switching(b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade"),
        switching(b"Connection: Upgrade"),
        switching(b"Upgrade: websocket"),
        switching(*FIELDS, b"Sec-WebSocket-Extensions: permessage-deflate"),
        switching(*FIELDS, b"Sec-WebSocket-Protocol: chat"),
        switching(*FIELDS, b"Sec-WebSocket-Accept: x"),
        switching(b"X: " + b"y" * MAX_HEAD_BYTES, *FIELDS[:1]),
    ],
    ids=lambda raw: "",
)
async def test_another_answer_is_none(raw: RawUpstream) -> None:
    async with raw.run(), door(raw.url) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.connect(WS)


async def test_a_head_without_end_is_cut_off() -> None:
    async def speak(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            writer.write(b"X-A: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    async with RawUpstream(speak).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.connect(WS)


async def test_nobody_there() -> None:
    async with door(NOWHERE) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.connect(WS)


async def test_no_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "HANDSHAKE_LIMIT_S", SHORT_S)
    async with RawUpstream(silent).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.connect(WS)


async def test_who_asks_no_more_leaves_no_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def speak(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        gone.set()

    async with RawUpstream(speak).run() as raw, door(raw.url) as upstream, asyncio.timeout(GUARD_S):
        asking = asyncio.ensure_future(upstream.connect(WS))
        await asked.wait()
        asking.cancel()
        await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_as_many_as_clients_have_and_none_stays_when_the_gate_stops() -> None:
    async def greet(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async with serving(greet) as url, door(url) as upstream:
        opened = [(await upstream.connect(WS), Notes()) for _ in range(150)]
        for socket, notes in opened:
            socket.start(notes)
        assert all(socket.transport is not None for socket, _ in opened)
        await upstream.stop()
        for _, notes in opened:
            await notes.ends.wait()

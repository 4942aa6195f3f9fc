"""What a WebSocket's client sends: ComfyUI hears one message of it, the gate parses no more, and a flood ends its own socket."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from proxy.websocket import event_session, message_rate
from proxy.websocket.message_rate import BYTES, BYTES_PER_S, MESSAGES, MESSAGES_PER_S, MessageRate
from tests.harness import Running
from tests.matrix.world import World
from tests.proxy.upstreams import GUARD_S

FLAGS = '{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'


@pytest.fixture
async def gate(world: World) -> Running:
    return world.running


async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    async for _ in socket:
        pass
    return socket.close_code


async def test_a_flood_of_messages_closes_its_own_socket_and_no_other(gate: Running) -> None:
    async with (
        asyncio.timeout(GUARD_S),
        gate.session.ws_connect(gate.url + "/ws?clientId=a", headers=gate.headers("mallory")) as flood,
        gate.session.ws_connect(gate.url + "/ws?clientId=b", headers=gate.headers("mallory")) as other,
    ):
        await other.receive()
        for _ in range(int(MESSAGES) * 3):
            try:
                await flood.send_str("{}")
            except aiohttp.ClientConnectionError:
                break
        assert await close_code(flood) in (1006, 1008)
        await other.send_str(FLAGS)
        assert "feature_flags" in str((await other.receive()).data)


@pytest.mark.parametrize("frame", [b"\x89\x80mask", b"\x8a\x80mask", b"\x01\x80mask" + b"\x00\x80mask" * 50])
async def test_a_flood_of_pings_or_fragments_closes_its_own_socket(gate: Running, frame: bytes) -> None:
    async with (
        asyncio.timeout(GUARD_S),
        gate.session.ws_connect(gate.url + "/ws?clientId=a", headers=gate.headers("mallory")) as flood,
        gate.session.ws_connect(gate.url + "/ws?clientId=b", headers=gate.headers("mallory")) as other,
    ):
        await other.receive()
        connection = flood._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(frame * (int(MESSAGES) + 1 if len(frame) < 10 else 1))
        connection.transport.write(b"\x00\x80mask" * (int(MESSAGES) if len(frame) > 10 else 0))
        assert await close_code(flood) in (1006, 1008)
        await other.ping()
        await other.send_str(FLAGS)
        assert "feature_flags" in str((await other.receive()).data)


async def test_nothing_is_parsed_once_the_flags_are_answered(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        asyncio.timeout(GUARD_S),
        gate.session.ws_connect(gate.url + "/ws?clientId=a", headers=gate.headers("alice")) as socket,
    ):
        await socket.receive()
        await socket.send_str(FLAGS)
        first = (await socket.receive()).data
        monkeypatch.setattr(event_session, "to_upstream", lambda frame: pytest.fail("parsed"))
        await socket.send_str("[" * 1000)
        await socket.send_str(FLAGS)
        assert (await socket.receive()).data == first


@pytest.mark.parametrize(
    ("size", "at_once", "per_s"), [(1, MESSAGES, MESSAGES_PER_S), (2**20, BYTES / 2**20, BYTES_PER_S / 2**20)]
)
def test_the_rate_counts_messages_and_bytes_and_refills(size: int, at_once: float, per_s: float) -> None:
    now_s = 0.0
    rate = MessageRate(lambda: now_s)
    assert [rate.takes(size) for _ in range(int(at_once))] == [True] * int(at_once)
    assert not rate.takes(size)
    now_s += 2 * (message_rate.MESSAGES / per_s + 1)
    assert rate.takes(size)

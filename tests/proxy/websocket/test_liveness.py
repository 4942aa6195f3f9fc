"""Pings find peers that are gone, and no peer that is only busy."""

from __future__ import annotations

import asyncio
import sys

import pytest

from proxy.websocket import liveness
from proxy.websocket.liveness import Life, since_acknowledged_s
from tests.harness import Running
from tests.wire.raw import GUARD_S, connect

UPGRADE = (
    "GET /ws?clientId=busy HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n\r\n"
)
PING = b"\x89\x00"


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def opened(gate: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket of a program that answers nothing."""
    reader, writer = await connect(gate.url)
    writer.write(UPGRADE.format(gate.keys["alice"]).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_busy_peer_lives(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PING_INTERVAL_S", 0.01)
    async with asyncio.timeout(GUARD_S):
        reader, writer = await opened(gate)
        for _ in range(20):
            await reader.readuntil(PING)
        assert len(gate.gate.dependencies.sockets) == 1
        writer.close()


async def test_a_silent_peer_is_given_up_in_the_end(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PING_INTERVAL_S", 0.01)
    monkeypatch.setattr(liveness, "SILENCE_S", 0.05)
    async with asyncio.timeout(GUARD_S):
        reader, writer = await opened(gate)
        await reader.read()
        writer.close()


async def test_a_peer_whose_machine_is_gone_is_found(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PING_INTERVAL_S", 0.01)
    monkeypatch.setattr(liveness, "since_acknowledged_s", lambda transport: 46.0)
    async with asyncio.timeout(GUARD_S):
        reader, writer = await opened(gate)
        await reader.read()
        writer.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux tells")
async def test_linux_tells_when_the_peer_has_acknowledged() -> None:
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        await writer.drain()
        told = since_acknowledged_s(writer.transport)
        assert told is not None
        assert 0 <= told < GUARD_S
        assert not Life(writer.transport).is_dead()
        writer.close()
        await writer.wait_closed()


async def test_where_the_system_tells_nothing_silence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert not Life(writer.transport, lambda transport: None).is_dead()
        assert Life(None).is_dead()
        monkeypatch.setattr(sys, "platform", "win32")
        assert since_acknowledged_s(writer.transport) is None
        writer.close()
        await writer.wait_closed()

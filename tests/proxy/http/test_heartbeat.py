"""Pings find peers that are gone, and no peer that is only busy."""

from __future__ import annotations

import asyncio
import sys

import pytest

from proxy.http import heartbeat
from proxy.http.heartbeat import Heartbeat, is_dead, since_acknowledged_s
from proxy.http.websocket import Close, WebSocket
from proxy.http.websocket_frames import PONG, frame_of
from tests.proxy.http.sockets import raw_peer
from tests.wire.raw import GUARD_S

PING = b"\x89\x00"
MASK = b"\x01\x02\x03\x04"


@pytest.fixture(autouse=True)
async def guard() -> object:
    async with asyncio.timeout(GUARD_S):
        yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PING_INTERVAL_S", 0.03)


async def test_each_is_pinged_and_one_that_answers_lives(quick: None) -> None:
    beat = Heartbeat(silence_s=0.09)
    async with raw_peer() as (socket, _, reader, writer), raw_peer() as (other, _, of_other, to_other):
        beat.watch(socket)
        beat.watch(other)
        for _ in range(10):
            assert await reader.readexactly(2) == await of_other.readexactly(2) == PING
            writer.write(frame_of(PONG, b"", MASK))
            to_other.write(frame_of(PONG, b"", MASK))
    while beat._timer is not None:  # it has nobody to look at any more
        await asyncio.sleep(0)
    assert not any(beat._groups)


async def test_one_that_stops_breaks_all_off(quick: None) -> None:
    beat = Heartbeat(silence_s=3600.0)
    async with raw_peer() as (socket, notes, reader, _):
        beat.watch(socket)
        beat.stop()
        assert await reader.read() == b""
        await notes.ends.wait()
        assert beat._timer is None
        beat.stop()


async def test_one_that_is_silent_for_too_long_is_given_up(quick: None) -> None:
    beat = Heartbeat(silence_s=0.09)
    async with raw_peer() as (socket, notes, reader, _):
        beat.watch(socket)
        pings = await reader.read()
        assert pings in (PING * 3, PING * 4)
        await notes.ends.wait()
        assert notes.end == (Close(1006, ""), False)


async def test_one_whose_machine_is_gone_is_given_up(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "since_acknowledged_s", lambda transport: 46.0)
    beat = Heartbeat(silence_s=3600.0)
    async with raw_peer() as (socket, notes, reader, _):
        beat.watch(socket)
        assert await reader.read() == b""
        await notes.ends.wait()


async def test_many_are_not_looked_at_at_once() -> None:
    beat = Heartbeat(silence_s=3600.0)
    for number in range(300):
        beat.watch(WebSocket(is_client=False, max_bytes=1))
        if number % 10 == 0:
            beat._at = (beat._at + 1) % len(beat._groups)
    assert max(len(group) for group in beat._groups) == 10
    beat.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: only Linux tells")
async def test_linux_tells_when_the_peer_has_acknowledged() -> None:
    async with raw_peer() as (socket, _, _, _):
        assert socket.transport is not None
        socket.send("x")
        told = since_acknowledged_s(socket.transport)
        assert told is not None
        assert 0 <= told < GUARD_S
        assert not is_dead(socket, socket.transport, 300.0)


async def test_where_the_system_tells_nothing_silence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_peer() as (socket, _, _, _):
        monkeypatch.setattr(sys, "platform", "win32")
        assert socket.transport is not None
        assert since_acknowledged_s(socket.transport) is None
        assert not is_dead(socket, socket.transport, 300.0)
        socket.silent_looks = 11
        assert is_dead(socket, socket.transport, 300.0)

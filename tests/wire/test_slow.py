"""Clients that take their time: closed when it is up, and nobody beside them notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.http import server as http_server
from standin import StandIn
from tests.harness import Running, running_gate
from tests.wire.raw import GUARD_S, connect, parse_answer, request, rest_of

HALF_HEAD = b"GET /features HTTP/1.1\r\nHost: gate.example\r\nX-Slow: 1"
CROWD = 200
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def kept_alive(key: str) -> bytes:
    return request("/features", key).replace(b"Connection: close\r\n", b"")


@pytest.fixture(autouse=True)
def _quick_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the gate reads on after an answer that came before the end of the body; it is 5 s."""
    monkeypatch.setattr(http_server, "_LINGERING_S", 0.2)


@dataclass
class Wires:
    """Connections to one gate; all are closed in the end."""

    gate: Running
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.gate.keys["admin"]

    async def open(self, data: bytes = b"") -> Connection:
        reader, writer = await connect(self.gate.url)
        self.opened.append(writer)
        writer.write(data)
        return reader, writer

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """One more request on a connection that stays open; its status."""
        writer.write(kept_alive(self.key))
        return await answer_of(reader)


async def answer_of(reader: asyncio.StreamReader) -> int:
    answer = parse_answer(await reader.readuntil(b"\r\n\r\n"))
    await reader.readexactly(int(answer.all("Content-Length")[0]))
    return answer.status


@asynccontextmanager
async def wires(folder: Path, comfy: StandIn, *settings: str, limits: str = "") -> AsyncIterator[Wires]:
    """The time limits of other tests are long, so that only the one in question can be what ends a connection. limits: of each tenant."""
    server = "\n".join(settings)
    async with running_gate(folder, comfy.url, server=server, more=limits) as gate, asyncio.timeout(2 * GUARD_S):
        opened = Wires(gate)
        try:
            yield opened
        finally:
            for writer in opened.opened:
                writer.transport.abort()


async def test_a_crowd_of_slow_clients_is_sent_away_and_nobody_notices(tmp_path: Path, comfy: StandIn) -> None:
    settings = 'header_timeout = "1s"', 'body_timeout = "1s"'
    async with wires(tmp_path, comfy, *settings, limits=f"concurrent_requests = {2 * CROWD}") as wire:
        good = await wire.open()
        assert await wire.ask(*good) == 200
        body = request("/userdata/slow.txt", wire.key, "Content-Length: 1000", method="POST", body=b"begun")
        slow = [await wire.open(data) for data in [HALF_HEAD, body] * CROWD]
        # All that was accepted is at work when these are answered.
        statuses = [await wire.ask(*good) for _ in range(20)]
        statuses += [await wire.gate.status("GET", "/queue", "alice") for _ in range(20)]
        assert set(statuses) == {200}
        ends = await asyncio.gather(*(rest_of(reader) for reader, _ in slow))
        assert set(ends[::2]) == {b""}, "heads that never came whole"
        assert {parse_answer(end).status for end in ends[1::2]} == {408}, "bodies that never came whole"
        assert await wire.gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert await wire.gate.status("GET", "/userdata/slow.txt") == 404
        while (
            wire.gate.gate.dependencies.limiter.slots._connections > 2
        ):  # those that are answered and still might send
            await asyncio.sleep(0.02)


async def test_silence_is_not_waited_for(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, 'header_timeout = "200ms"') as wire:
        reader, _ = await wire.open()
        assert await rest_of(reader) == b""


async def drip(writer: asyncio.StreamWriter, data: bytes, reader: asyncio.StreamReader) -> bytes:
    """Sends the bytes one by one, again and again, until the gate hangs up; what it said."""
    end = asyncio.ensure_future(rest_of(reader))
    while not end.done():
        for byte in data:
            writer.write(bytes([byte]))
            await asyncio.wait((end,), timeout=0.01)
    return await end


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_head_that_drips_in_is_cut_off(tmp_path: Path, comfy: StandIn, is_first: bool) -> None:
    """Each byte would do as a sign of life; the head as a whole has its time."""
    async with wires(tmp_path, comfy, 'header_timeout = "300ms"') as wire:
        reader, writer = await wire.open()
        if not is_first:
            assert await wire.ask(reader, writer) == 200
        writer.write(HALF_HEAD)
        assert await drip(writer, b"1", reader) == b""


async def test_a_body_that_drips_in_is_cut_off(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, 'body_timeout = "300ms"', 'min_body_bytes_per_second = "1KiB"') as wire:
        for target in ("/userdata/slow.txt", "/prompt"):
            reader, writer = await wire.open(request(target, wire.key, "Content-Length: 100000", method="POST"))
            answer = parse_answer(await drip(writer, b" ", reader))
            assert answer.status == 408
            assert answer.all("Connection") == ["close"]


@pytest.mark.parametrize("half", [HALF_HEAD, b"G", b"GET /features HTTP/1.1\r\n", kept_alive("x")[:-2]])
async def test_a_later_head_has_its_time_and_a_silent_connection_has_more(
    tmp_path: Path, comfy: StandIn, half: bytes
) -> None:
    async with wires(tmp_path, comfy, 'header_timeout = "300ms"', 'keepalive_timeout = "10m"') as wire:
        silent = await wire.open()
        assert await wire.ask(*silent) == 200
        slow = await wire.open()
        assert await wire.ask(*slow) == 200
        slow[1].write(half)
        assert await rest_of(slow[0]) == b""
        assert await wire.ask(*silent) == 200, "it was silent for longer than the other one had for its head"


async def test_a_head_in_pieces_is_a_head(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, 'header_timeout = "10m"', 'keepalive_timeout = "10m"') as wire:
        reader, writer = await wire.open()
        for _ in range(3):
            for piece in kept_alive(wire.key).partition(b"Host"):
                writer.write(piece)
                await writer.drain()
                assert await wire.gate.status("GET", "/gate/health", None) == 200
            assert await answer_of(reader) == 200


async def test_the_time_for_a_head_does_not_run_while_a_request_does(tmp_path: Path, comfy: StandIn) -> None:
    """Nor during a body or on a WebSocket, whose bytes are no head."""
    async with wires(tmp_path, comfy, 'header_timeout = "200ms"', 'keepalive_timeout = "10m"') as wire:
        gate = wire.gate
        body = request("/userdata/long.txt", wire.key, "Content-Length: 2", method="POST", body=b"a")
        reader, writer = await wire.open(body)
        socket = await gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("alice"))
        await socket.receive()
        await socket.send_str("{}")
        other, _ = await wire.open(HALF_HEAD)
        assert await rest_of(other) == b"", "so long ago the others began"
        writer.write(b"b")
        assert parse_answer(await rest_of(reader)).status == 200
        assert not socket.closed
        await socket.ping()
        await socket.close()


async def test_an_idle_connection_ends_after_its_time(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, 'keepalive_timeout = "200ms"') as wire:
        reader, writer = await wire.open()
        assert await wire.ask(reader, writer) == 200
        assert await rest_of(reader) == b""


async def test_no_more_connections_than_may_be(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, "max_connections = 3") as wire:
        gate = wire.gate
        async with (
            gate.session.ws_connect(gate.url + "/ws", headers=gate.headers("admin")) as first,
            gate.session.ws_connect(gate.url + "/ws", headers=gate.headers("admin")),
            gate.session.ws_connect(gate.url + "/ws", headers=gate.headers("admin")),
        ):
            for _ in range(12):
                reader, _ = await wire.open(kept_alive(wire.key))
                answer = await rest_of(reader)
                assert (parse_answer(answer).status, b"no_connections_left" in answer) == (503, True)
            reader, _ = await wire.open(request("/gate/health", None).replace(b"Connection: close\r\n", b""))
            assert parse_answer(await rest_of(reader)).status == 200, "an edge that asks sees that the gate is there"
            await first.close()
            status = 0
            while status != 200:  # until the gate has seen that one left
                reader, _ = await wire.open(kept_alive(wire.key))
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    status = await answer_of(reader)
            async with gate.session.get(gate.ops_url + "/healthz") as alive:
                assert alive.status == 200, "the ops listener has its own"


async def test_who_is_idle_gives_way_to_who_asks(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, "max_connections = 3") as wire:
        kept = [await wire.open() for _ in range(3)]
        for connection in kept:
            assert await wire.ask(*connection) == 200
        for _ in range(5):
            assert await wire.ask(*await wire.open()) == 200
        for reader, _ in kept:
            assert await rest_of(reader) == b""


async def test_a_head_that_is_too_large_is_refused(tmp_path: Path, comfy: StandIn) -> None:
    async with wires(tmp_path, comfy, 'max_header_bytes = "2KiB"') as wire:
        many = [f"X-{number}: {'a' * 90}" for number in range(30)]
        for lines, reason in ((many, b"header_malformed"), (["X-A: " + "a" * 3000], b"header_malformed")):
            reader, _ = await wire.open(request("/features", wire.key, *lines))
            answer = await rest_of(reader)
            assert (parse_answer(answer).status, reason in answer) == (400, True)
        reader, _ = await wire.open(request("/features", wire.key, *many[:10]))
        assert parse_answer(await rest_of(reader)).status == 200
        reader, _ = await wire.open(request("/features?x=" + "a" * 20_000, wire.key))
        assert parse_answer(await rest_of(reader)).status == 400


@pytest.mark.parametrize("endless", [b"a" * 1000, b"X-A: 1\r\n" * 100, b"\r\n" * 100])
async def test_a_head_without_end_is_cut_off_soon(tmp_path: Path, comfy: StandIn, endless: bytes) -> None:
    """And is not kept meanwhile: whoever sends it pays for more than the gate does."""
    async with wires(tmp_path, comfy, 'header_timeout = "1s"') as wire:
        reader, writer = await wire.open(b"GET /features HTTP/1.1\r\nHost: x\r\n" if endless.strip() else b"")
        end = asyncio.ensure_future(rest_of(reader))
        with suppress(ConnectionError):
            while not end.done():
                writer.write(endless)
                await writer.drain()
                await asyncio.wait((end,), timeout=0.001)
        answer = await end
        assert answer == b"" or parse_answer(answer).status in (400, 431)
        assert await wire.gate.status("GET", "/features") == 200

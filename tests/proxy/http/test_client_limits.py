"""How long a client may take: to send a head, to read, to ask again, and to go on sending what nobody reads."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from proxy.http import server as http_server
from proxy.http.client_limits import ClientLimits
from proxy.http.connection import Connection
from proxy.http.request import Request
from tests.proxy.http.requests import hello, served
from tests.proxy.http.wires import connected
from tests.wire.raw import connect, request

LIMITS = ClientLimits(
    stall_s=4.0, bytes_per_second=10, header_s=10.0, keepalive_s=75.0, unproven_idle_s=20.0, lingering_s=5.0
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"


def test_how_often_a_connection_is_looked_at() -> None:
    assert LIMITS.look_every_s == 1.0
    assert LIMITS.bytes_between_looks == 10
    assert ClientLimits(4.0, 0, 4.0, 4.0, 4.0, 4.0).bytes_between_looks == 1


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([1000, 990, 980, 970, 960, 950, 940], False),
        ([1000, 999, 998, 997, 996, 995, 994], True),
        ([1000, 1000, 1000, 0, 1000, 1000, 1000], False),
        ([10, 1000, 2000, 3000, 4000, 5000, 6000], True),
    ],
)
async def test_a_reader_must_take_so_much_in_the_time(waiting: list[int], expected: bool) -> None:
    async with connected(hello) as (connection, wire):
        now_s = asyncio.get_running_loop().time()
        connection.look(now_s, LIMITS)
        for number, size in enumerate(waiting, start=1):
            wire.waiting = size
            connection.look(now_s + number, LIMITS)
        assert wire.is_aborted is expected


async def test_a_reader_that_has_taken_all_begins_anew() -> None:
    async with connected(hello) as (connection, wire):
        wire.waiting = 1000
        now_s = asyncio.get_running_loop().time()
        connection.look(now_s - LIMITS.stall_s, LIMITS)
        connection.pause_writing()
        connection.resume_writing()
        connection.look(now_s + LIMITS.stall_s / 2, LIMITS)
        assert not wire.is_aborted


async def answered(connection: Connection) -> None:
    """The handler had its turn."""
    while connection._is_answering:
        await asyncio.sleep(0)


class Unanswered:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        await self.go_on.wait()
        await hello(request)


@pytest.mark.parametrize(
    ("came", "is_proven", "patience_s"),
    [
        (b"", False, LIMITS.header_s),
        (b"", True, LIMITS.header_s),
        (GET[:-1], True, LIMITS.header_s),
        (GET, False, LIMITS.unproven_idle_s),
        (GET, True, LIMITS.keepalive_s),
        (GET + GET[:5], True, LIMITS.header_s),
        (POST, True, LIMITS.lingering_s),
        (b"no request\r\n\r\n", True, LIMITS.lingering_s),
    ],
)
async def test_what_is_waited_for_has_its_time(came: bytes, is_proven: bool, patience_s: float) -> None:
    async with connected(hello) as (connection, wire):
        connection.party = "alice" if is_proven else ""
        if came:
            connection.data_received(came)
        await answered(connection)
        since_s = connection._waiting_since_s
        connection.look(since_s + patience_s - 0.01, LIMITS)
        assert not wire.is_aborted
        connection.look(since_s + patience_s + 0.01, LIMITS)
        assert wire.is_aborted


async def test_who_is_answered_for_the_last_time_gives_way_once_all_is_sent() -> None:
    go_on = asyncio.Event()

    async def last(request: Request) -> None:
        request.prove("alice")
        await go_on.wait()
        await request.send(200, (("Connection", "close"),), b"last")

    async with connected(last) as (connection, wire):
        connection.data_received(GET)
        connection.data_received(GET)
        await asyncio.sleep(0)
        assert not connection.gives_way, "it is being answered"
        wire.waiting = 10
        go_on.set()
        await answered(connection)
        assert (wire.has_eof, wire.is_closed) == (True, False), (
            "what came behind the request is read, so that its answer arrives"
        )
        assert not connection.gives_way
        wire.waiting = 0
        assert connection.gives_way


@pytest.mark.parametrize("came", [GET, POST])
async def test_a_request_that_runs_may_last(came: bytes) -> None:
    """How long a body may take is said where it is read."""
    handler = Unanswered()
    async with connected(handler) as (connection, wire):
        connection.data_received(came)
        connection.look(asyncio.get_running_loop().time() + 10_000, LIMITS)
        assert not wire.is_aborted
        handler.go_on.set()
        await answered(connection)


async def test_the_time_for_a_head_runs_from_its_first_byte() -> None:
    async with connected(hello) as (connection, wire):
        connection.data_received(GET)
        await answered(connection)
        connection._waiting_since_s -= 1000
        connection.data_received(GET[:5])
        began_s = connection._waiting_since_s
        connection._server.loop = cast(asyncio.AbstractEventLoop, Later(connection._server.loop))
        connection.data_received(GET[5:9])
        assert connection._waiting_since_s == began_s
        connection._server.loop = cast(Later, connection._server.loop).loop
        connection.look(began_s + LIMITS.header_s + 0.01, LIMITS)
        assert wire.is_aborted


class Later:
    """A loop an hour later."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def time(self) -> float:
        return self.loop.time() + 3600


async def test_empty_lines_before_a_request_are_no_request() -> None:
    """RFC 9112, 2.2 lets a client send one; who sends them for ever does not stay idle for ever."""
    async with connected(hello) as (connection, wire):
        connection.data_received(GET)
        await answered(connection)
        since_s = connection._waiting_since_s
        connection._server.loop = cast(asyncio.AbstractEventLoop, Later(connection._server.loop))
        connection.data_received(b"\r\n\r\n")
        connection._server.loop = cast(Later, connection._server.loop).loop
        assert connection._waiting_since_s == since_s
        connection.look(since_s + LIMITS.unproven_idle_s + 0.01, LIMITS)
        assert wire.is_aborted


async def test_nothing_is_looked_at_when_it_is_gone() -> None:
    async with connected(hello) as (connection, wire):
        connection.connection_lost(None)
        connection.look(asyncio.get_running_loop().time() + 10_000, LIMITS)
        assert not wire.is_aborted


@pytest.mark.parametrize("is_known", [False, True])
async def test_only_who_showed_a_credential_may_stay_idle(is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: Request) -> None:
        if is_known:
            request.prove("alice")
        await hello(request)

    looked = asyncio.Queue[bool]()
    monkeypatch.setattr(http_server, "_UNPROVEN_IDLE_S", 0.05)
    original = Connection.look

    def look(self: Connection, now_s: float, limits: ClientLimits) -> None:
        original(self, now_s, limits)
        looked.put_nowait(True)

    monkeypatch.setattr(Connection, "look", look)
    kept = request("/", None).replace(b"Connection: close\r\n", b"")
    async with served(answer) as listener:
        reader, writer = await connect(listener.url)
        writer.write(kept)
        await reader.readuntil(b"hello")
        if is_known:
            for _ in range(12):
                await looked.get()
            writer.write(kept)
            await reader.readuntil(b"hello")
        else:
            assert not await reader.read()
        writer.close()

"""What came and is not read yet is bounded over all connections: half a head, or requests before their turn. So is what strangers do not take."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from proxy.config.limits import LimitSettings
from proxy.http import unread
from proxy.http.connection import Connection
from proxy.http.listener import Listener
from proxy.http.request import Request
from proxy.http.request_wire import READ_BYTES
from proxy.http.server import Server
from proxy.limits.underway import WAITING_PER_PLACE
from tests.proxy.http.requests import hello, served
from tests.proxy.http.test_server import is_cut_off
from tests.wire.raw import connect, request

HALF = b"GET / HTTP/1.1\r\nHost: gate.example\r\nX-Half: " + b"a" * 10_000
GET = b"GET / HTTP/1.1\r\nHost: gate.example\r\n\r\n"


def server_of(listener: Listener) -> Server:
    return listener._server


def unsent_bytes(connection: Connection) -> int:
    return 0 if connection._transport is None else connection._transport.get_write_buffer_size()


async def until_unread(server: Server, count: int) -> list[Connection]:
    """Those of which something waits, the longest first."""
    while len(waiting_of(server)) < count:
        await asyncio.sleep(0)
    return waiting_of(server)


def waiting_of(server: Server) -> list[Connection]:
    return [*server._unread.of_strangers.waiting, *server._unread.of_known.waiting]


def unread_bytes(server: Server) -> int:
    return server._unread.of_strangers.bytes + server._unread.of_known.bytes


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MAX_STRANGERS_BYTES", len(HALF) * 3 + 10)
    monkeypatch.setattr(unread, "MAX_KNOWN_BYTES", len(HALF) * 3 + 10)


@pytest.mark.usefixtures("little_room")
async def test_half_heads_beyond_the_bound_cost_who_holds_one_for_longest() -> None:
    async with served() as listener:
        opened = []
        for number in range(3):
            opened.append(await connect(listener.url))
            opened[-1][1].write(HALF)
            await until_unread(server_of(listener), number + 1)
        opened[0][1].write(b"a")  # a byte more does not make it a new one
        opened.append(await connect(listener.url))
        opened[-1][1].write(HALF)
        assert await is_cut_off(opened[0][0])
        for reader, writer in opened[1:]:
            writer.write(b"\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")
        for _, writer in opened:
            writer.close()
        assert (waiting_of(server_of(listener)), unread_bytes(server_of(listener))) == ([], 0)


async def proving(request: Request) -> None:
    if request.raw_path == "/key":
        request.prove("alice")
    await hello(request)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("are_strangers", [True, False])
async def test_strangers_and_who_brought_a_key_are_hung_up_on_for_their_own_kind_alone(are_strangers: bool) -> None:
    async with served(proving) as listener:
        spared, *many = [await connect(listener.url) for _ in range(5)]
        for reader, writer in many if not are_strangers else [spared]:
            writer.write(GET.replace(b"/ ", b"/key ", 1))
            await reader.readuntil(b"hello")
        for number, (_, writer) in enumerate([spared, *many[:3]]):
            writer.write(HALF)
            await until_unread(server_of(listener), number + 1)
        many[3][1].write(HALF)
        assert await is_cut_off(many[0][0])
        spared[1].write(b"\r\n\r\n")
        await spared[0].readuntil(b"hello")
        for _, writer in (spared, *many):
            writer.transport.abort()


@pytest.mark.usefixtures("little_room")
async def test_who_has_most_is_hung_up_on_and_not_who_waits_for_longest() -> None:
    async def of_a_tenant(request: Request) -> None:
        request.prove(request.raw_path[1:])
        await hello(request)

    async with served(of_a_tenant) as listener:
        opened = []
        for number, tenant in enumerate((b"alice", b"bob", b"carol", b"bob")):
            reader, writer = await connect(listener.url)
            writer.write(GET.replace(b"/ ", b"/" + tenant + b" ", 1))
            await reader.readuntil(b"hello")
            opened.append((reader, writer))
            writer.write(HALF)
            if number < 3:
                await until_unread(server_of(listener), number + 1)
        assert await is_cut_off(opened[1][0])
        for reader, writer in (opened[0], *opened[2:]):
            writer.write(b"\r\n\r\n")
            await reader.readuntil(b"hello")
        assert (waiting_of(server_of(listener)), unread_bytes(server_of(listener))) == ([], 0)
        for _, writer in opened:
            writer.transport.abort()


async def test_one_tenant_never_has_enough_for_anybody_to_be_hung_up_on() -> None:
    requests = LimitSettings().concurrent_requests
    assert requests is not None
    assert requests * (1 + WAITING_PER_PLACE) * READ_BYTES < unread.MAX_KNOWN_BYTES

    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        request.prove("alice")
        begun.set()
        await go_on.wait()
        await hello(request)

    async with served(slow) as listener:
        reader, writer = await connect(listener.url)
        writer.write(GET)
        await begun.wait()
        writer.write(GET * (4 * READ_BYTES // len(GET)))
        (connection,) = await until_unread(server_of(listener), 1)
        assert len(GET) <= unread_bytes(server_of(listener)) == len(connection._unread) <= READ_BYTES
        go_on.set()
        for _ in range(1 + 4 * READ_BYTES // len(GET)):
            await reader.readuntil(b"hello")
        writer.close()


@pytest.mark.usefixtures("little_room")
async def test_requests_before_their_turn_count() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        begun.set()
        await go_on.wait()
        await hello(request)

    async with served(slow) as listener:
        hasty = await connect(listener.url)
        hasty[1].write(GET + GET * (len(HALF) * 2 // len(GET)))
        await begun.wait()
        await until_unread(server_of(listener), 1)
        half = await connect(listener.url)
        half[1].write(HALF + b"a" * 11_000)
        assert await is_cut_off(hasty[0])
        go_on.set()
        half[1].write(b"\r\nConnection: close\r\n\r\n")
        assert (await half[0].read()).endswith(b"hello")
        for _, writer in (hasty, half):
            writer.transport.abort()


@pytest.mark.usefixtures("little_room")
async def test_what_came_with_a_tenants_first_request_costs_no_stranger() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def of_a_tenant(request: Request) -> None:
        request.prove("alice")
        begun.set()
        await go_on.wait()
        await hello(request)

    async with served(of_a_tenant) as listener:
        spared = await connect(listener.url)
        spared[1].write(HALF)
        await until_unread(server_of(listener), 1)
        hasty = await connect(listener.url)
        hasty[1].write(GET + GET * (len(HALF) * 3 // 2 // len(GET)))
        await begun.wait()
        await until_unread(server_of(listener), 2)
        other, before = await connect(listener.url), unread_bytes(server_of(listener))
        other[1].write(HALF)
        while unread_bytes(server_of(listener)) == before:
            await asyncio.sleep(0)
        go_on.set()
        for reader, writer in (spared, other):
            writer.write(b"\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")
        for _, writer in (spared, hasty, other):
            writer.transport.abort()


async def test_what_is_read_in_its_turn_counts_no_more() -> None:
    async with served() as listener:
        reader, writer = await connect(listener.url)
        for _ in range(5):
            writer.write(GET * 100)
            for _ in range(100):
                await reader.readuntil(b"hello")
        writer.write(GET * 20 + request("/", None) + GET)
        await reader.read()
        assert (waiting_of(server_of(listener)), unread_bytes(server_of(listener))) == ([], 0)
        writer.close()


@pytest.mark.parametrize("is_known", [False, True])
async def test_one_answer_at_a_time_waits_for_a_stranger_that_does_not_read(is_known: bool) -> None:
    loop = asyncio.get_running_loop()

    async def answer(request: Request) -> None:
        if is_known:
            request.prove("alice")
        await request.send(200, (), b"x" * 2000)

    async with served(answer) as listener:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", listener.port))
            waiting_bytes = 0
            while not waiting_bytes:
                with suppress(BlockingIOError):
                    client.send(GET * 100)
                await asyncio.sleep(0)
                waiting_bytes = sum(unsent_bytes(each) for each in server_of(listener)._open if each._is_write_paused)
        assert (waiting_bytes > 50_000) is is_known
        assert (waiting_bytes < 3000) is not is_known

"""A listener that stops on a socket that was passed to it: who is connected is answered once more, and who connects waits for the next listener."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import pytest

from proxy.config.server import ServerSettings
from proxy.http import server as http_server
from proxy.http.listener import Listener
from proxy.http.request import Request
from proxy.http.server import Handler, public_server
from tests.proxy.http.requests import hello, served, talking
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import connect, parse_answer, request, rest_of, send

KEPT = request("/", None).replace(b"Connection: close\r\n", b"")


@pytest.fixture
def manager() -> socket.socket:
    """Holds the socket, whoever listens."""
    return socket.create_server(("127.0.0.1", 0))


@asynccontextmanager
async def passed(manager: socket.socket, handler: Handler = hello) -> AsyncIterator[Listener]:
    own = manager.dup()
    own.setblocking(False)
    server = public_server(handler, ServerSettings(), nullcontext)
    listener = Listener(server, "127.0.0.1", own.getsockname()[1], "server.port", [own])
    await listener.start()
    try:
        async with asyncio.timeout(GUARD_S):
            yield listener
    finally:
        await listener.stop()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"hello")


async def test_who_connects_while_nobody_listens_is_answered_by_the_next(manager: socket.socket) -> None:
    with manager:
        async with passed(manager) as listener:
            assert listener.is_passed
            await listener.stop_accepting()
            await listener.drain()
        asking = asyncio.ensure_future(send(listener.url, request("/", None)))
        reader, writer = await connect(listener.url)
        writer.write(KEPT)
        async with passed(manager):
            assert (await asking).body == b"hello"
            assert b"Connection" not in await answer_of(reader)
            writer.close()


async def test_what_comes_on_an_open_connection_is_answered_for_the_last_time(manager: socket.socket) -> None:
    with manager:
        async with passed(manager) as listener, talking(listener) as (reader, writer):
            writer.write(KEPT)
            assert b"Connection" not in await answer_of(reader)
            await listener.stop_accepting()
            draining = asyncio.ensure_future(listener.drain())
            await asyncio.wait((draining,), timeout=0)
            assert not draining.done()
            writer.write(KEPT)
            assert parse_answer(await rest_of(reader)).all("Connection") == ["close"]
            await draining


async def test_what_has_come_behind_a_request_is_answered_too(manager: socket.socket) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        begun.set()
        await go_on.wait()
        await hello(request)

    with manager:
        async with passed(manager, slow) as listener, talking(listener) as (reader, writer):
            writer.write(KEPT * 3)
            await begun.wait()
            await listener.stop_accepting()
            go_on.set()
            await listener.drain()
            raw = await rest_of(reader)
    assert (raw.count(b"hello"), raw.count(b"Connection: close")) == (3, 1)


async def test_what_was_accepted_last_is_answered(manager: socket.socket) -> None:
    """It is no connection of the server's yet when that stops."""
    with manager:
        async with passed(manager) as listener:
            client = socket.create_connection(manager.getsockname())
            client.sendall(KEPT)
            for _ in range(
                2
            ):  # the loop accepts it at the end of the first turn, and knows no connection before its third
                await asyncio.sleep(0)
            assert not listener._server._open
            await listener.stop_accepting()
            await listener.drain()
            reader, writer = await asyncio.open_connection(sock=client)
            assert parse_answer(await rest_of(reader)).all("Connection") == ["close"]
            writer.close()


async def test_a_request_that_runs_ends(manager: socket.socket) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        begun.set()
        await go_on.wait()
        await hello(request)

    with manager:
        async with passed(manager, slow) as listener, talking(listener) as (reader, writer):
            writer.write(KEPT)
            await begun.wait()
            await listener.stop_accepting()
            draining = asyncio.ensure_future(listener.drain())
            await asyncio.wait((draining,), timeout=0)
            go_on.set()
            assert parse_answer(await rest_of(reader)).all("Connection") == ["close"]
            await draining


@pytest.mark.parametrize("asked", [True, False], ids=["has asked", "has not asked"])
async def test_who_does_not_ask_again_is_hung_up_on(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr(http_server, "DRAIN_IDLE_S", 0.05)
    with manager:
        async with passed(manager) as listener, talking(listener) as (reader, writer):
            if asked:
                writer.write(KEPT)
                await answer_of(reader)
            await listener.stop_accepting()
            await listener.drain()
            assert await reader.read() == b""


@pytest.mark.parametrize("is_proven", [False, True])
async def test_a_stranger_that_holds_its_body_back_is_not_waited_for(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, is_proven: bool
) -> None:
    monkeypatch.setattr(http_server, "DRAIN_IDLE_S", 0.05)
    begun = asyncio.Event()

    async def reads(request: Request) -> None:
        if is_proven:
            request.prove("alice")
        begun.set()
        await request.body.read()
        await hello(request)

    with manager:
        async with passed(manager, reads) as listener, talking(listener) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
            await begun.wait()
            await listener.stop_accepting()
            draining = asyncio.ensure_future(listener.drain())
            if is_proven:
                while asyncio.get_running_loop().time() <= listener._server._strangers_leave_s + 0.05:
                    await asyncio.sleep(0)
                writer.write(b"x")
            await draining
            assert (b"hello" in await rest_of(reader)) is is_proven


async def test_an_idle_connection_is_not_closed_under_a_request() -> None:
    """What has come is not read yet when its time is over."""
    async with served(keepalive_timeout="1h") as listener, talking(listener) as (reader, writer):
        writer.write(KEPT)
        await answer_of(reader)
        (connection,) = listener._server._open
        found = writer.get_extra_info("socket")
        later = asyncio.get_running_loop().time() + 7200
        socket.socket.send(found._sock, KEPT)  # past the loop, which reads it in its next turn
        connection.look(later, listener._server._limits)
        assert await answer_of(reader)
        connection.look(later, listener._server._limits)
        assert await reader.read() == b""


async def test_without_a_passed_socket_who_connects_is_refused() -> None:
    async with served() as listener:
        assert not listener.is_passed
        await listener.stop_accepting()
        with pytest.raises(ConnectionError):
            await connect(listener.url)

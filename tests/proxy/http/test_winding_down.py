"""A listener that winds down: it answers whoever comes, on each connection once, until what ran before has ended and nothing later is slow."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from proxy.http import connection as http_connection
from proxy.http import server as http_server
from proxy.http.request import Request
from tests.proxy.http.requests import hello, served, talking
from tests.wire.raw import connect, parse_answer, request, rest_of, send

KEPT = request("/", None).replace(b"Connection: close\r\n", b"")
LONG_S = 3600.0


class Held:
    """Answers `/slow` when it is let go, and what has a body when that has come; `/proven` has a good credential, `/open` an answer without length."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        if request.raw_path == "/proven":
            request.prove("alice")
        self.begun.put_nowait(request.raw_path)
        if request.raw_path == "/open":
            await request.begin_answer(200, ())
            await request.send_piece(b"some")
        if request.raw_path in ("/slow", "/open"):
            await self.go_on.wait()
        await request.body.read()
        await hello(request)


def upload(path: str) -> bytes:
    return request(path, None, "Content-Length: 1", method="POST")


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_connects_is_answered_once_while_something_runs() -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (reader, writer):
        writer.write(request("/slow", None))
        await held.begun.get()
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        for _ in range(3):
            later, later_writer = await connect(listener.url)
            later_writer.write(KEPT)
            answer = parse_answer(await rest_of(later))
            assert (answer.body, answer.all("Connection")) == (b"hello", ["close"])
            later_writer.close()
        assert not winding_down.done()
        held.go_on.set()
        assert (await rest_of(reader)).endswith(b"hello")
        assert await winding_down
        assert (await send(listener.url, KEPT)).body == b"hello", "it accepts until it is told otherwise"


async def test_an_idle_connection_has_its_time_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "DRAIN_IDLE_S", 0.05)
    async with served() as listener, talking(listener) as (reader, writer):
        writer.write(KEPT)
        await reader.readuntil(b"hello")
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        assert not winding_down.done()
        assert (await send(listener.url, KEPT)).body == b"hello"
        assert await reader.read() == b""
        assert await winding_down


async def test_where_nothing_runs_it_returns() -> None:
    async with served() as listener:
        assert await listener.wind_down(LONG_S)


async def test_a_later_upload_is_waited_for() -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (first, first_writer):
        first_writer.write(request("/slow", None))
        await held.begun.get()
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        async with talking(listener) as (reader, writer):
            writer.write(upload("/proven"))
            await held.begun.get()
            held.go_on.set()
            await rest_of(first)
            await turns()
            assert not winding_down.done()
            assert (await send(listener.url, KEPT)).body == b"hello"
            writer.write(b"x")
            assert parse_answer(await rest_of(reader)).body == b"hello"
        assert await winding_down


async def test_a_later_answer_that_takes_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_QUICK_S", -1.0)
    held = Held()
    async with served(held) as listener, talking(listener):
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        async with talking(listener) as (later, later_writer):
            later_writer.write(request("/slow", None))
            await held.begun.get()
            next(iter(listener._server._open)).close()  # the idle one that there was
            await turns()
            assert not winding_down.done()
            held.go_on.set()
            assert parse_answer(await rest_of(later)).body == b"hello"
        assert await winding_down


async def test_a_stranger_that_comes_later_and_holds_its_body_back_is_not_waited_for() -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (first, first_writer):
        first_writer.write(request("/slow", None))
        await held.begun.get()
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        async with talking(listener) as (_, writer):
            writer.write(upload("/"))
            await held.begun.get()
            held.go_on.set()
            await rest_of(first)
            assert await winding_down
            assert listener._server._open


async def test_whoever_comes_later_has_the_time_that_those_before_had() -> None:
    """What is over for strangers that there were is not over for one that has just come."""
    held = Held()
    async with served(held) as listener, talking(listener) as (first, first_writer):
        first_writer.write(request("/slow", None))
        await held.begun.get()
        winding_down = asyncio.ensure_future(listener.wind_down(LONG_S))
        await turns()
        listener._server._strangers_leave_s = asyncio.get_running_loop().time() - 1
        async with talking(listener) as (reader, writer):
            writer.write(upload("/"))
            await held.begun.get()
            listener._server._look()
            writer.write(b"x")
            assert parse_answer(await rest_of(reader)).body == b"hello"
        held.go_on.set()
        await rest_of(first)
        assert await winding_down


@pytest.mark.parametrize("path", ["/slow", "/open"])
async def test_when_the_time_is_over_what_ran_before_is_cut_off_and_never_looks_whole(path: str) -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (reader, writer):
        writer.write(request(path, None).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await held.begun.get()
        if path == "/open":
            await reader.readuntil(b"some")
        assert not await listener.wind_down(0.05)
        with suppress(ConnectionResetError) if path == "/slow" else pytest.raises(ConnectionResetError):
            assert await reader.read() == b""


async def test_when_the_time_is_over_what_came_later_has_the_time_of_a_drain() -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (first, first_writer):
        first_writer.write(request("/slow", None))
        await held.begun.get()
        loop = asyncio.get_running_loop()
        winding_down = asyncio.ensure_future(listener.wind_down(0.2))
        await turns()
        async with talking(listener) as (reader, writer):
            writer.write(upload("/proven"))
            assert await held.begun.get() == "/proven"
            assert not await winding_down
            assert (await rest_of(first)) == b""
            await listener.stop_accepting()
            draining = loop.create_task(listener.drain())
            await turns()
            assert not draining.done()
            writer.write(b"x")
            assert parse_answer(await rest_of(reader)).body == b"hello"
            await draining


async def test_a_server_that_stops_cuts_no_answer_off_so_that_it_looks_whole() -> None:
    held = Held()
    async with served(held) as listener, talking(listener) as (reader, writer):
        writer.write(request("/open", None).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await reader.readuntil(b"some")
        await listener.stop()
        with pytest.raises(ConnectionResetError):
            await reader.read()

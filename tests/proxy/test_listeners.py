"""Sockets to listen on: what cannot be listened on is said, how many connections there are is bounded, and silence is cut off."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from aiohttp import web

from proxy.config.server import ServerSettings
from proxy.listeners import Listener, ListenError, public_server
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import connect, request, send


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


@asynccontextmanager
async def listening(take: Any = nullcontext, handler: Any = hello, **settings: Any) -> AsyncIterator[Listener]:
    server = public_server(handler, ServerSettings.model_validate(settings), take)
    listener = Listener(server, "127.0.0.1", 0, "server.port")
    await listener.start()
    try:
        async with asyncio.timeout(GUARD_S):
            yield listener
    finally:
        await listener.stop()


async def test_says_where_it_listens() -> None:
    async with listening() as listener:
        assert listener.port > 0
        assert listener.url == f"http://127.0.0.1:{listener.port}"
        assert (await send(listener.url, request("/", None))).body == b"hello"


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    async def built() -> Listener:
        return Listener(web.Server(hello), "::1", 8190, "server.port")

    assert asyncio.run(built()).url == "http://[::1]:8190"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


async def test_a_port_in_use_says_what_to_do(taken: int) -> None:
    listener = Listener(web.Server(hello), "127.0.0.1", taken, "ops.port")
    with pytest.raises(ListenError, match=rf"127.0.0.1:{taken} is already in use: .*change ops.port in config.toml"):
        await listener.start()


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
async def test_an_address_that_is_not_here_says_so(host: str) -> None:
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:0 \(server.port\): ."):
        await Listener(web.Server(hello), host, 0, "server.port").start()


async def test_an_address_that_is_not_permitted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: web.TCPSite) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(web.TCPSite, "start", refuse)
    with pytest.raises(ListenError, match=r"cannot listen on 127.0.0.1:80 .*Permission denied"):
        await Listener(web.Server(hello), "127.0.0.1", 80, "server.port").start()


async def test_stops_accepting_and_goes_on_serving() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return web.Response(text="done")

    async with listening(handler=slow) as listener:
        url = listener.url
        asking = asyncio.ensure_future(send(url, request("/", None)))
        await begun.wait()
        await listener.stop_accepting()
        await listener.stop_accepting()
        with pytest.raises(ConnectionError):
            await connect(url)
        go_on.set()
        assert (await asking).body == b"done"


async def test_what_still_runs_is_cut_off() -> None:
    """Whoever stops a listener has waited for its requests already: aiohttp alone would wait two minutes more."""
    begun, cut = asyncio.Event(), asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cut.set()
        raise AssertionError("not reached")

    async with listening(handler=endless) as listener:
        _, writer = await connect(listener.url)
        writer.write(request("/", None))
        await begun.wait()
        await listener.stop()
        await cut.wait()
        writer.close()


class Places:
    def __init__(self, free: int) -> None:
        self.free = free
        self.given_back = asyncio.Event()

    def take(self) -> Places | None:
        return self if self.free else None

    def __enter__(self) -> None:
        self.free -= 1

    def __exit__(self, *_: object) -> None:
        self.free += 1
        self.given_back.set()


async def test_connections_are_bounded() -> None:
    places = Places(1)
    async with listening(places.take) as listener:
        reader, writer = await connect(listener.url)
        keep = request("/", None).replace(b"Connection: close\r\n", b"")
        writer.write(keep)
        await reader.readuntil(b"hello")
        for _ in range(3):
            other, another = await connect(listener.url)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await other.readexactly(1)
            another.close()
        writer.write(keep)
        await reader.readuntil(b"hello")
        writer.close()
        await writer.wait_closed()
        await places.given_back.wait()
        assert (await send(listener.url, request("/", None))).body == b"hello"
    assert places.free == 1


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_a_head_that_does_not_come_whole_is_cut_off(said: bytes) -> None:
    async with listening(header_timeout="50ms") as listener:
        reader, writer = await connect(listener.url)
        writer.write(said)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_a_request_may_last_longer_than_its_head_might() -> None:
    checked = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(0.1, checked.set)
        await checked.wait()
        return web.Response(text="hello")

    async with listening(handler=slow, header_timeout="20ms") as listener:
        assert (await send(listener.url, request("/", None))).body == b"hello"


async def test_an_answer_that_has_begun_is_not_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise LookupError("a bug of a handler")

    async with listening(handler=broken) as listener:
        answer = await send(listener.url, request("/", None))
    assert answer.raw.count(b"HTTP/1.1 ") == 1
    assert b"0\r\n\r\n" not in answer.body

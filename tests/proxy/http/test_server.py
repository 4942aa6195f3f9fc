"""Sockets to listen on: what cannot be listened on is said, how many connections there are is bounded, and silence is cut off."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from proxy.http import server as http_server
from proxy.http.listener import Listener, ListenError
from proxy.http.request import Request
from proxy.http.server import ops_server
from tests.proxy.http.requests import hello, served
from tests.wire.raw import connect, request, send


async def test_says_where_it_listens() -> None:
    async with served() as listener:
        assert listener.port > 0
        assert listener.url == f"http://127.0.0.1:{listener.port}"
        assert (await send(listener.url, request("/", None))).body == b"hello"


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    async def built() -> Listener:
        return Listener(ops_server(hello), "::1", 8190, "server.port")

    assert asyncio.run(built()).url == "http://[::1]:8190"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


async def test_a_port_in_use_says_what_to_do(taken: int) -> None:
    listener = Listener(ops_server(hello), "127.0.0.1", taken, "ops.port")
    with pytest.raises(ListenError, match=rf"127.0.0.1:{taken} is already in use: .*change ops.port in config.toml"):
        await listener.start()


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
async def test_an_address_that_is_not_here_says_so(host: str) -> None:
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:0 \(server.port\): ."):
        await Listener(ops_server(hello), host, 0, "server.port").start()


async def test_an_address_that_is_not_permitted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", refuse)
    with pytest.raises(ListenError, match=r"cannot listen on 127.0.0.1:80 .*Permission denied"):
        await Listener(ops_server(hello), "127.0.0.1", 80, "server.port").start()


async def test_stops_accepting_and_goes_on_serving() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> None:
        begun.set()
        await go_on.wait()
        await request.send(200, (), b"done")

    async with served(slow) as listener:
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
    """Whoever stops a listener has waited for its requests already."""
    begun, cut = asyncio.Event(), asyncio.Event()

    async def endless(request: Request) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cut.set()
        raise AssertionError("not reached")

    async with served(endless) as listener:
        _, writer = await connect(listener.url)
        writer.write(request("/", None))
        await begun.wait()
        await listener.stop()
        await cut.wait()
        writer.close()


async def test_a_client_whose_machine_is_gone_is_noticed() -> None:
    """The system asks after a connection on which nothing comes for hours: a stream of events may be as quiet."""
    asked = list[int]()

    async def answer(request: Request) -> None:
        transport = request.connection._transport
        assert transport is not None
        asked.append(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        await hello(request)

    async with served(answer) as listener:
        await send(listener.url, request("/", None))
    assert asked == [1]


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


KEPT = request("/", None).replace(b"Connection: close\r\n", b"")


class Gatherer:
    """A handler that answers when it is told to, and says of each request whether its connection is a reserved one."""

    def __init__(self) -> None:
        self.come = asyncio.Queue[bool]()
        self.go_on = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        self.come.put_nowait(request.is_reserved)
        await self.go_on.wait()
        await hello(request)


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    try:
        return not await reader.read(1)
    except ConnectionError:
        return True


async def test_beyond_the_bound_so_many_are_reserved_and_no_more() -> None:
    places, handler = Places(1), Gatherer()
    async with served(handler, take=places.take) as listener:
        opened = []
        for number in range(1 + http_server.RESERVED):
            opened.append(await connect(listener.url))
            opened[-1][1].write(KEPT)
            assert await handler.come.get() is (number > 0)
        beyond, writer = await connect(listener.url)
        assert await is_cut_off(beyond)
        writer.close()
        handler.go_on.set()
        for reader, writer in opened:
            await reader.readuntil(b"hello")
            writer.close()
        await places.given_back.wait()
        assert (await send(listener.url, request("/", None))).body == b"hello"
    assert places.free == 1


async def test_an_idle_connection_gives_way_to_a_new_one() -> None:
    places, handler = Places(2), Gatherer()
    async with served(handler, take=places.take) as listener:
        busy = await connect(listener.url)
        busy[1].write(KEPT)
        await handler.come.get()
        silent = await connect(listener.url)
        while places.free:
            await asyncio.sleep(0)
        new = await connect(listener.url)
        new[1].write(KEPT)
        assert await handler.come.get() is False
        assert await is_cut_off(silent[0])
        handler.go_on.set()
        await busy[0].readuntil(b"hello")
        await new[0].readuntil(b"hello")
        for _, writer in (busy, silent, new):
            writer.close()


async def test_the_oldest_silent_one_of_the_reserved_gives_way() -> None:
    handler = Gatherer()
    handler.go_on.set()
    async with served(handler, take=Places(0).take) as listener:
        silent = [await connect(listener.url) for _ in range(http_server.RESERVED)]
        assert (await send(listener.url, request("/", None))).body == b"hello"
        assert await is_cut_off(silent[0][0])
        for _, writer in silent:
            writer.close()


LARGE = b"x" * 32 * 1024**2


async def large(request: Request) -> None:
    await request.send(200, (), LARGE)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    places = Places(1)
    async with served(large, take=places.take, body_timeout="200ms") as listener:
        _, writer = await connect(listener.url)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("/", None))
        await places.given_back.wait()
        writer.transport.abort()


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_a_head_that_does_not_come_whole_is_cut_off(said: bytes) -> None:
    async with served(header_timeout="50ms") as listener:
        reader, writer = await connect(listener.url)
        writer.write(said)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_a_request_may_last_longer_than_its_head_might() -> None:
    checked = asyncio.Event()

    async def slow(request: Request) -> None:
        asyncio.get_running_loop().call_later(1.0, checked.set)
        await checked.wait()
        await hello(request)

    async with served(slow, header_timeout="500ms") as listener:
        assert (await send(listener.url, request("/", None))).body == b"hello"

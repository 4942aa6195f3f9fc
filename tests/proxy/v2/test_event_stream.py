"""A client that follows a job and does not read: what waits for it is bounded, and it has the newest when it reads again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from policy.v2.events import COMMENT
from policy.v2.links import Links
from proxy.http.websocket import Close
from proxy.v2 import event_stream
from proxy.v2.audience import Audience
from proxy.v2.event_stream import MAX_STALLED_LOOKS, MAX_UNSENT_BYTES, EventStream, KeepAlive, Piece
from tests.proxy.upstreams import GUARD_S

LARGE = b"x" * 300_000


@asynccontextmanager
async def connected(*, is_chunked: bool = False) -> AsyncIterator[tuple[EventStream, asyncio.StreamReader]]:
    """A stream, and its client, which reads nothing unless the test does."""
    loop = asyncio.get_running_loop()
    stream = EventStream(Links(), is_chunked=is_chunked)
    server = await loop.create_server(lambda: stream, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port, limit=2**10)
    while not stream.is_open:
        await asyncio.sleep(0)
    yield stream, reader
    stream.abort()
    writer.close()
    server.close()


def fill(stream: EventStream) -> None:
    """Until the client's machine and the gate's take no more."""
    while not stream.is_write_paused:
        stream.offer("preview", Piece(LARGE))


async def ended(stream: EventStream) -> None:
    async with asyncio.timeout(GUARD_S):
        while stream.transport is not None:
            await asyncio.sleep(0)


async def test_a_piece_is_framed_once() -> None:
    piece = Piece(b"data")
    assert piece.framed(is_chunked=False) is piece.data
    assert piece.framed(is_chunked=True) == b"4\r\ndata\r\n"
    assert piece.framed(is_chunked=True) is piece.framed(is_chunked=True)


async def test_of_a_whole_state_the_newest_waits_for_a_slow_reader() -> None:
    async with connected() as (stream, reader):
        fill(stream)
        for number in range(1000):
            stream.offer("progress", Piece(b"progress %d\n" % number))
            stream.offer("preview", Piece(b"preview %d\n" % number))
        assert stream.transport is not None
        assert stream.transport.get_write_buffer_size() <= len(LARGE)
        assert stream.dropped_previews == 2 * 999
        stream.send(Piece(b"output\n"))
        stream.finish(Piece(b"end\n"))
        tail = (await reader.read(-1)).lstrip(b"x")
        assert tail == b"output\nprogress 999\npreview 999\nend\n"
        await ended(stream)


async def test_a_slow_reader_that_reads_again_goes_on() -> None:
    async with connected() as (stream, reader):
        fill(stream)
        stream.offer("progress", Piece(b"progress 1\n"))
        read = b""
        while not read.endswith(b"progress 1\n"):
            read = read[-20:] + await reader.read(2**16)
        stream.offer("progress", Piece(b"progress 2\n"))
        assert await reader.readline() == b"progress 2\n"


async def test_one_that_takes_no_state_is_let_go() -> None:
    async with connected() as (stream, _):
        fill(stream)
        while stream.is_open:
            stream.send(Piece(LARGE))
            assert stream.transport is None or stream.transport.get_write_buffer_size() <= MAX_UNSENT_BYTES + len(LARGE)
        await ended(stream)
        stream.send(Piece(b"late"))
        stream.offer("progress", Piece(b"late"))
        stream.finish(Piece(b"late"))
        stream.close(Close(1000, ""))
        stream.look()


async def test_one_that_takes_nothing_for_long_is_let_go() -> None:
    async with connected() as (stream, _):
        fill(stream)
        for _ in range(MAX_STALLED_LOOKS):
            stream.look()
            assert stream.is_open
        stream.look()
        await ended(stream)


async def test_one_that_reads_hears_a_comment_at_each_look() -> None:
    async with connected(is_chunked=True) as (stream, reader):
        stream.look()
        stream.look()
        assert await reader.readexactly(2 * 8) == b"3\r\n:\n\n\r\n" * 2
        stream.finish()
        assert await reader.read() == b"0\r\n\r\n"


async def test_a_stream_that_the_gate_ends_has_an_end() -> None:
    async with connected(is_chunked=True) as (stream, reader):
        stream.send(Piece(b"data"))
        stream.close(Close(1001, "the gate is stopping"), at_once=True)
        assert await reader.read() == b"4\r\ndata\r\n0\r\n\r\n"


async def test_a_stream_that_the_gate_ends_does_not_wait_for_a_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "CLOSE_LIMIT_S", 0.01)
    async with connected() as (stream, _):
        fill(stream)
        stream.close(Close(1001, "the gate is stopping"), at_once=True)
        await ended(stream)


async def test_who_waits_for_the_end_is_told_also_later_and_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    async with connected() as (stream, _):
        stream.at_end(fail)
        stream.at_end(lambda: told.append("before"))
        stream.abort()
        await ended(stream)
        stream.at_end(lambda: told.append("after"))
    assert told == ["before", "after"]
    assert "has ended badly" in caplog.text


async def test_one_timer_looks_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EACH_S", 0.014)
    keep_alive = KeepAlive()
    async with connected() as (one, reads_one), connected() as (two, reads_two):
        keep_alive.watch(one)
        keep_alive.watch(two)
        for reader in (reads_one, reads_two, reads_one):
            assert await reader.readexactly(len(COMMENT)) == COMMENT
    async with asyncio.timeout(GUARD_S):
        while keep_alive._timer is not None:
            await asyncio.sleep(0.01)
    async with connected() as (again, reader):
        keep_alive.watch(again)
        assert await reader.readexactly(len(COMMENT)) == COMMENT
        keep_alive.stop()


async def test_what_happens_at_one_stream_keeps_no_other_from_being_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EACH_S", 0.014)
    keep_alive, errors = KeepAlive(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    async with connected() as (broken, _), connected() as (whole, reader):
        look = EventStream.look

        def fail(stream: EventStream) -> None:
            if stream is broken:
                raise OverflowError
            look(stream)

        monkeypatch.setattr(EventStream, "look", fail)
        for stream in (broken, whole):  # in one group, whichever comes first in it
            keep_alive.watch(stream)
        assert await reader.readexactly(len(COMMENT)) == COMMENT
        keep_alive.stop()
    assert isinstance(errors[0], OverflowError)


async def test_who_stops_it_while_it_looks_has_stopped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_EACH_S", 0.014)
    keep_alive, looked = KeepAlive(), asyncio.Event()
    async with connected() as (stream, _):

        def stop(stream: EventStream) -> None:
            keep_alive.stop()
            looked.set()

        monkeypatch.setattr(EventStream, "look", stop)
        keep_alive.watch(stream)
        async with asyncio.timeout(GUARD_S):
            await looked.wait()
        assert keep_alive._timer is None


async def test_links_of_each_client_are_its_own_and_written_once() -> None:
    written: list[Links] = []

    def write(links: Links) -> bytes:
        written.append(links)
        return links.origin.encode() + b"\n"

    audience = Audience(lambda kinds: None)
    async with connected() as (one, reads_one), connected() as (two, reads_two), connected() as (three, reads_three):
        one.links, two.links, three.links = Links("a"), Links("b"), Links("a")
        for stream in (one, two, three):
            audience.join(stream)
        audience.send_with_links(write)
        assert [await reader.readline() for reader in (reads_one, reads_two, reads_three)] == [b"a\n", b"b\n", b"a\n"]
        assert len(written) == 2
        audience.leave(one)
        assert audience
        audience.changed("progress")
        audience.leave(two)
        audience.leave(three)
        assert not audience
        audience.changed("progress")
    audience.finish(None)

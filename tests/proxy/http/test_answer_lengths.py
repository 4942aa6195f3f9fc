"""An answer in pieces is as long as its head says, or its connection ends: a byte more would be read as the next answer, a byte less be taken from it."""

from __future__ import annotations

import asyncio
import http.client

import pytest

from proxy.http.request import Request, WrongLength
from tests.proxy.http.requests import hello, served, talking
from tests.wire.raw import request

KEPT = b"GET / HTTP/1.1\r\nHost: gate.example\r\n\r\n"
LENGTH = (("content-length", "4"),)


class Answering:
    """A handler that says a length of 4 and sends these pieces. failed: with what it ended; None where it did not fail."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.failed = asyncio.get_running_loop().create_future()

    async def __call__(self, request: Request) -> None:
        error = None
        try:
            await request.begin_answer(200, LENGTH)
            for piece in self._pieces:
                await request.send_piece(piece)
            await request.end_answer()
        except WrongLength as wrong:
            error = wrong
            raise
        finally:
            if not self.failed.done():
                self.failed.set_result(error)


@pytest.mark.parametrize("pieces", [(), (b"bod",), (b"bo", b"", b"d")])
async def test_one_that_is_shorter_ends_the_connection(pieces: tuple[bytes, ...]) -> None:
    handler = Answering(*pieces)
    async with served(handler) as listener, talking(listener) as (reader, writer):
        writer.write(KEPT + KEPT)
        said = await reader.read()
        assert isinstance(await handler.failed, WrongLength)
    assert said.count(b"HTTP/1.1 ") == 1, "nothing follows"


@pytest.mark.parametrize("pieces", [(b"body!",), (b"body", b"!"), (b"bo", b"dy!")])
async def test_of_one_that_is_longer_nothing_more_is_sent(pieces: tuple[bytes, ...]) -> None:
    handler = Answering(*pieces)
    async with served(handler) as listener, talking(listener) as (reader, writer):
        writer.write(KEPT + KEPT)
        said = await reader.read()
        assert isinstance(await handler.failed, WrongLength)
    assert b"!" not in said
    assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("pieces", [(b"body",), (b"b", b"", b"ody")])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_one_of_its_length_is_followed_by_the_next(pieces: tuple[bytes, ...], method: str) -> None:
    handler = Answering(*pieces)
    async with served(handler) as listener:

        def ask() -> list[bytes]:
            client = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=240)
            found = []
            for _ in range(2):
                client.request(method, "/")
                found.append(client.getresponse().read())
                assert client.sock is not None, "kept"
            client.close()
            return found

        assert await asyncio.to_thread(ask) == [b"body" if method == "GET" else b""] * 2
        assert await handler.failed is None


async def test_a_length_that_is_no_number_leaves_nothing_on_the_wire() -> None:
    async def answer(request: Request) -> None:
        with pytest.raises(ValueError, match="four"):
            await request.begin_answer(200, (("Content-Length", "four"),))
        await hello(request)

    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(request("/", None))
        said = await reader.read()
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.endswith(b"hello")


async def test_one_that_only_its_connection_ends_never_looks_whole_when_it_breaks_off() -> None:
    """HTTP/1.0 has no chunks: whoever reads to the end must meet an error there."""

    async def broken(request: Request) -> None:
        await request.begin_answer(200, ())
        await request.send_piece(b"half")
        await go_on.wait()
        raise LookupError("the rest is nowhere")

    go_on = asyncio.Event()
    async with served(broken) as listener, talking(listener) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.readuntil(b"half")).startswith(b"HTTP/1.1 200 OK\r\n")
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()

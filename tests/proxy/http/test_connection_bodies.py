"""Bodies on a connection: held back while nobody reads them, and dropped when their request is answered without them."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.http import server as http_server
from proxy.http.request import HIGH_WATER_BYTES, Request
from proxy.http.request_wire import MORE_BYTES, READ_BYTES
from tests.programs import path_of
from tests.proxy.http.requests import hello, served, talking
from tests.wire.raw import parse_answer

HEAD = "POST {} HTTP/1.1\r\nHost: gate.example\r\n{}\r\n\r\n"
GET = b"GET /next HTTP/1.1\r\nHost: gate.example\r\nConnection: close\r\n\r\n"


def by_length(size: int, path: str = "/", *more: str) -> bytes:
    return HEAD.format(path, "\r\n".join([f"Content-Length: {size}", *more])).encode()


CHUNKED = HEAD.format("/", "Transfer-Encoding: chunked").encode()


async def read_all(request: Request) -> bytes:
    read = b""
    while piece := await request.body.read():
        read += piece
    return read


async def digest_told(request: Request) -> None:
    read = await read_all(request)
    await request.send(200, (), hashlib.sha256(read).hexdigest().encode())


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_comes_as_it_was_sent(size: int, is_chunked: bool) -> None:
    data = os.urandom(size)

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 300_000):
            yield data[start : start + 300_000]

    async with served(digest_told) as listener:

        def ask() -> tuple[int, bytes]:
            client = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=240)
            client.request("POST", "/", body=pieces() if is_chunked else data, encode_chunked=is_chunked)
            answer = client.getresponse()
            found = (answer.status, answer.read())
            client.close()
            return found

        assert await asyncio.to_thread(ask) == (200, hashlib.sha256(data).hexdigest().encode())


@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"], ["-0"]])
async def test_a_body_of_curls(options: list[str], tmp_path: Path) -> None:
    """curl waits a second for the answer to its expectation, and sends then."""
    file = tmp_path / "body"
    file.write_bytes(os.urandom(3_000_000))

    async def answer(request: Request) -> None:
        if "Expect" in request.headers:
            request.ask_for_body()
        await digest_told(request)

    async with served(answer) as listener:
        command = [path_of("curl"), "-sS", "--max-time", "240", "--data-binary", f"@{file}", *options, listener.url]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert done.stdout.decode() == hashlib.sha256(file.read_bytes()).hexdigest()


class Reluctant:
    """A handler that reads when it is told to. request: the one that runs."""

    def __init__(self) -> None:
        self.has_begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.request: Request | None = None

    async def __call__(self, request: Request) -> None:
        self.request = request
        self.has_begun.set()
        await self.go_on.wait()
        await digest_told(request)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_what_nobody_reads_fills_no_memory(is_chunked: bool) -> None:
    handler, size = Reluctant(), 16 * 1024**2
    piece = b"x" * 64 * 1024
    async with served(handler) as listener, talking(listener) as (reader, writer):
        writer.write(CHUNKED if is_chunked else by_length(size))
        for _ in range(size // len(piece)):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        writer.write(b"0\r\n\r\n" if is_chunked else b"")
        await handler.has_begun.wait()
        waiting = await quiet(handler, writer)
        assert HIGH_WATER_BYTES < waiting <= HIGH_WATER_BYTES + READ_BYTES
        assert writer.transport.get_write_buffer_size() > size // 4
        handler.go_on.set()
        expected = hashlib.sha256(b"x" * size).hexdigest().encode()
        await reader.readuntil(expected)


async def quiet(handler: Reluctant, writer: asyncio.StreamWriter) -> int:
    """How much of the body waits, when it is full and no more of it is taken from the client."""
    assert handler.request is not None
    while not handler.request.body.is_full:
        await asyncio.sleep(0)
    same, last = 0, -1
    while same < 50:
        await asyncio.sleep(0)
        now = writer.transport.get_write_buffer_size()
        same, last = (same + 1, now) if now == last else (0, now)
    return handler.request.body.waiting_bytes


@pytest.mark.parametrize("is_sent", [True, False])
async def test_the_rest_of_a_body_is_dropped_and_the_connection_goes_on(is_sent: bool) -> None:
    size = 2_000_000
    async with served(hello) as listener, talking(listener) as (reader, writer):
        writer.write(by_length(size) + (b"x" * size if is_sent else b"half"))
        await reader.readuntil(b"hello")
        writer.write((b"" if is_sent else b"x" * (size - 4)) + GET)
        answer = parse_answer(await reader.read())
    assert (answer.status, answer.body) == (200, b"hello")


async def test_the_rest_of_a_body_is_no_request() -> None:
    paths = []

    async def answer(request: Request) -> None:
        paths.append(request.raw_path)
        await hello(request)

    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(by_length(len(hidden) * 3, "/first") + hidden)
        await reader.readuntil(b"hello")
        writer.write(hidden)
        writer.write(hidden + GET)
        await reader.read()
    assert paths == ["/first", "/next"]


async def test_a_client_that_never_sends_the_rest_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_LINGERING_S", 0.05)
    async with served(hello) as listener, talking(listener) as (reader, writer):
        writer.write(by_length(100) + b"half")
        await reader.readuntil(b"hello")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_a_client_that_still_sends_can_read_why_its_connection_ends() -> None:
    """A connection that is closed under a sender takes the answer with it (RFC 9112, 9.6)."""

    async def refuse(request: Request) -> None:
        await request.send(413, (("Connection", "close"),), b"too large")

    async with served(refuse) as listener, talking(listener) as (reader, writer):
        writer.write(by_length(8_000_000))
        for _ in range(100):
            writer.write(b"x" * 80_000)
            await writer.drain()
        answer = parse_answer(await reader.read())
    assert (answer.status, answer.body) == (413, b"too large")


async def test_a_client_that_sent_more_than_is_answered_can_read_its_last_answer() -> None:
    """What nobody read when a connection is closed takes with it what is on its way out."""
    begun, go_on, size, loop = asyncio.Event(), asyncio.Event(), 600_000, asyncio.get_running_loop()

    async def last(request: Request) -> None:
        begun.set()
        await go_on.wait()
        await request.send(200, (("Connection", "close"),), b"x" * size)

    async with served(last) as listener:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # most of the answer waits for its reader
            client.connect(("127.0.0.1", listener.port))
            client.setblocking(False)
            await loop.sock_sendall(client, GET)
            await begun.wait()
            sent = 0
            with suppress(BlockingIOError):
                while True:  # until the gate reads no more
                    sent += client.send(GET * 1000)
                    await asyncio.sleep(0)
            go_on.set()
            said = b""
            while data := await loop.sock_recv(client, 65536):
                said += data
    assert sent > 0
    assert said.count(b"x" * size) == 1
    assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("bad", [b"no request\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
async def test_whoever_sends_no_request_can_read_so(bad: bytes) -> None:
    async with served(hello) as listener, talking(listener) as (reader, writer):
        writer.write(bad)
        for _ in range(50):
            writer.write(b"x" * 80_000)
            await writer.drain()
        answer = parse_answer(await reader.read())
    assert (answer.status, answer.all("Connection")) == (400, ["close"])


@pytest.mark.parametrize("is_cut_off", [True, False])
async def test_a_body_that_breaks_off_is_no_whole_one(is_cut_off: bool) -> None:
    """It is told to whoever reads it, or the handler is cancelled."""
    ended, begun = asyncio.Queue[str](), asyncio.Event()

    async def answer(request: Request) -> None:
        begun.set()
        try:
            ended.put_nowait(f"whole: {await read_all(request)!r}")
        except ConnectionError:
            ended.put_nowait("broken")
        except asyncio.CancelledError:
            ended.put_nowait("cancelled")
            raise

    async with served(answer) as listener, talking(listener) as (_, writer):
        writer.write(CHUNKED + b"5\r\nhello\r\n" + (b"" if is_cut_off else b"no size\r\n"))
        await begun.wait()
        if is_cut_off:
            writer.transport.abort()
        assert await ended.get() in ({"broken", "cancelled"} if is_cut_off else {"broken"})
        writer.transport.abort()


@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_chunks_are_read_wherever_they_are_cut(cut: int) -> None:
    body = b"3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n"
    read = asyncio.Queue[bytes]()

    async def answer(request: Request) -> None:
        read.put_nowait(await read_all(request))
        assert "X-Trailer" not in request.headers
        await hello(request)

    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(CHUNKED + body[:cut])
        await writer.drain()
        writer.write(body[cut:] + GET)
        assert (await reader.read()).count(b"HTTP/1.1 ") == 1, "nothing follows a chunked body"
    assert await read.get() == b"abc0123456789"


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("asked_for", ["h2c", "websocket"])
async def test_a_body_comes_with_an_upgrade_that_nobody_answers(framing: str, asked_for: str) -> None:
    """Clients that would rather speak HTTP/2 offer it with whatever they send (RFC 9110, 7.8)."""

    async def answer(request: Request) -> None:
        assert not request.is_upgrade
        await digest_told(request)

    lines = f"Connection: Upgrade\r\nUpgrade: {asked_for}\r\n{framing}"
    body = b"hello" if "Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(HEAD.format("/", lines).encode())
        writer.write(body)
        await reader.readuntil(hashlib.sha256(b"hello").hexdigest().encode())


async def test_an_interim_answer_is_sent_before_an_answer_alone() -> None:
    async def answer(request: Request) -> None:
        request.ask_for_body()
        read = await read_all(request)
        request.ask_for_body()
        await request.send(200, (), read)

    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(by_length(5, "/", "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello" + GET.replace(b"GET", b"PUT"))
        said = await reader.read()
    assert said.count(b"HTTP/1.1 100") == 0
    assert said.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_is_read_in_large_pieces_while_its_reader_takes_them_and_what_is_behind_it_is_not(
    is_chunked: bool,
) -> None:
    size = 4 * MORE_BYTES
    sizes: list[int] = []

    async def measure(request: Request) -> None:
        if request.raw_path == "/":
            while piece := await request.body.read():
                sizes.append(len(piece))
        await request.send(200, (), b"hello")

    async with served(measure) as listener, talking(listener) as (reader, writer):
        writer.write(CHUNKED if is_chunked else by_length(size))
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)) if is_chunked else bytes(size))
        if not is_chunked:
            writer.write(GET)
        await reader.readuntil(b"hello")
        if not is_chunked:
            await reader.readuntil(b"hello")
    assert sum(sizes) == size
    assert sizes[0] <= READ_BYTES < max(sizes) <= MORE_BYTES

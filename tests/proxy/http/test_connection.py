"""One connection: its requests are answered one after the other and in order, and each answer is framed as its reader expects."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
from collections.abc import Collection
from contextlib import suppress

import pytest

from proxy.http.request import Request
from proxy.http.server import Handler
from tests.programs import path_of
from tests.proxy.http.requests import hello, served, talking
from tests.wire.raw import parse_answer, request, rest_of, send


def asked(path: str = "/", *lines: str, version: str = "1.1", method: str = "GET", body: bytes = b"") -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/{version}", "Host: gate.example", *lines))
    return head.encode() + b"\r\n" + body


async def path_told(request: Request) -> None:
    await request.send(200, (("Content-Type", "text/plain"),), f"[{request.raw_path}]".encode())


# Keeping a connection (RFC 9112, 9.3).


@pytest.mark.parametrize(
    ("version", "lines", "stays", "said"),
    [
        ("1.1", [], True, []),
        ("1.1", ["Connection: keep-alive"], True, []),
        ("1.1", ["Connection: close"], False, ["close"]),
        ("1.1", ["Connection: Close"], False, ["close"]),
        ("1.1", ["Connection: x-own, close"], False, ["close"]),
        ("1.1", ["Connection: x-own", "Connection: close"], False, ["close"]),
        ("1.0", [], False, ["close"]),
        ("1.0", ["Connection: keep-alive"], True, ["keep-alive"]),
        ("1.0", ["Connection: close"], False, ["close"]),
    ],
)
async def test_whether_another_request_may_follow(version: str, lines: list[str], stays: bool, said: list[str]) -> None:
    async with served(path_told) as listener, talking(listener) as (reader, writer):
        writer.write(asked("/a", *lines, version=version))
        assert parse_answer(await reader.readuntil(b"[/a]")).all("Connection") == said
        writer.write(asked("/b", *lines, version=version))
        assert (b"[/b]" in await (reader.readuntil(b"[/b]") if stays else rest_of(reader))) is stays


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_answer_that_closes_says_so_once(version: str) -> None:
    async def last(request: Request) -> None:
        await request.send(503, (("Connection", "close"), ("Retry-After", "5")), b"no")

    async with served(last) as listener:
        answer = await send(listener.url, asked(version=version) + asked("/never"))
    assert (answer.status, answer.all("Connection"), answer.body) == (503, ["close"], b"no")


async def test_requests_of_one_connection_by_a_client_of_another_make() -> None:
    async with served(path_told) as listener:

        def ask() -> list[tuple[int, bytes]]:
            client = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=240)
            found = []
            for number in range(3):
                client.request("POST", f"/{number}", body=b"x" * number * 100_000)
                answer = client.getresponse()
                found.append((answer.status, answer.read()))
                assert client.sock is not None, "kept"
            client.close()
            return found

        assert await asyncio.to_thread(ask) == [(200, b"[/0]"), (200, b"[/1]"), (200, b"[/2]")]


# In order.


class OneByOne:
    """A handler that notes how many requests run at once. begun: their paths, as they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = self.most = 0
        self.go_on = asyncio.Semaphore(0)
        self.has_begun = asyncio.Event()

    async def __call__(self, request: Request) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append(request.raw_path)
        self.has_begun.set()
        await self.go_on.acquire()
        await path_told(request)
        self.running -= 1


async def test_requests_that_come_at_once_are_answered_in_order_and_never_together() -> None:
    handler = OneByOne()
    async with served(handler) as listener, talking(listener) as (reader, writer):
        writer.write(b"".join(asked(f"/{number}") for number in range(20)))
        await handler.has_begun.wait()
        assert handler.begun == ["/0"]
        for number in range(20):
            handler.go_on.release()
            await reader.readuntil(f"[/{number}]".encode())
    assert handler.most == 1


async def test_what_comes_before_its_turn_is_not_read() -> None:
    """A client that sends on without reading is held back by TCP, not kept in memory."""
    handler = OneByOne()
    async with served(handler) as listener, talking(listener) as (_, writer):
        writer.write(asked("/first"))
        await handler.has_begun.wait()
        wire = writer.transport
        many = asked("/more") * 10_000
        sent = 0
        while wire.get_write_buffer_size() == 0 and sent < 64:
            writer.write(many)
            sent += 1
            for _ in range(20):
                await asyncio.sleep(0)
        assert wire.get_write_buffer_size() > 0
        assert handler.begun == ["/first"]
        wire.abort()


# The frame of an answer (RFC 9112, 6.3).


def in_pieces(status: int, *pieces: bytes, fields: Collection[tuple[str, str]] = ()) -> Handler:
    async def answer(request: Request) -> None:
        await request.begin_answer(status, fields)
        for piece in pieces:
            await request.send_piece(piece)
        await request.end_answer()

    return answer


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_a_whole_answer_has_a_frame_that_its_status_permits(method: str, status: int) -> None:
    async def answer(request: Request) -> None:
        if request.raw_path == "/next":
            await path_told(request)
        else:
            await request.send(status, (("ETag", '"a"'),), b"body")

    async with served(answer) as listener, talking(listener) as (reader, writer):
        writer.write(asked(method=method) + asked("/next", "Connection: close"))
        said = await rest_of(reader)
    first, _, second = said.partition(b"HTTP/1.1 200 OK\r\n") if status != 200 else (said, b"", said)
    has_body = method == "GET" and status not in (204, 304)
    assert said.count(b"HTTP/1.1 ") == 2
    assert (b"\r\n\r\nbodyHTTP" in said or (b"body" in first and status != 200)) is has_body
    lengths = parse_answer(said).all("Content-Length")
    assert lengths == ([] if status in (204, 304) else ["4"])
    assert second.endswith(b"[/next]")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("fields", [(), (("content-length", "4"),)])
async def test_an_answer_in_pieces_has_one_too(method: str, status: int, fields: tuple[tuple[str, str], ...]) -> None:
    if status == 204 and fields:
        return  # RFC 9110, 8.6: the handler's mistake
    async with served(in_pieces(status, b"bo", b"", b"dy", fields=fields)) as listener:
        client = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=240)

        def ask() -> list[tuple[bytes, str | None]]:
            found = []
            for _ in range(2):
                client.request(method, "/")
                answer = client.getresponse()
                found.append((answer.read(), answer.getheader("Transfer-Encoding")))
            client.close()
            return found

        has_body = method == "GET" and status == 200
        coding = "chunked" if has_body and not fields else None
        assert await asyncio.to_thread(ask) == [(b"body" if has_body else b"", coding)] * 2


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    """The end of the connection is the end of the body."""
    async with served(in_pieces(200, b"bo", b"dy")) as listener:
        answer = await send(listener.url, asked("/", "Connection: keep-alive", version="1.0"))
    assert (answer.body, answer.all("Transfer-Encoding"), answer.all("Connection")) == (b"body", [], ["close"])


@pytest.mark.parametrize("options", [["--http1.1"], ["--http1.0"], ["--head"], ["--http1.1", "-H", "Upgrade: h2c"]])
async def test_curl_agrees(options: list[str]) -> None:
    async with served(in_pieces(200, *[b"x" * 70_000] * 5)) as listener:
        command = [path_of("curl"), "-sS", "--max-time", "240", *options, f"{listener.url}/a", f"{listener.url}/b"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert done.stdout.count(b"x") == (0 if "--head" in options else 700_000)


# What goes wrong.


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: s=1", "a\nb", "a\rb", "a\r\n\r\nbody"])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_field_that_would_end_its_line_leaves_nothing_on_the_wire(value: str, is_whole: bool) -> None:
    async def answer(request: Request) -> None:
        try:
            if is_whole:
                await request.send(200, (("X-Told", value),), b"secret")
            else:
                await request.begin_answer(200, (("X-Told", value),))
        except ValueError:
            assert not request.has_answer
            await request.send(500, (), b"failed")

    async with served(answer) as listener:
        answered = await send(listener.url, request("/", None))
    assert answered.status == 500
    assert answered.raw.count(b"HTTP/1.1 ") == 1
    assert b"Set-Cookie" not in answered.raw


async def test_a_handler_that_raises_breaks_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request) -> None:
        raise LookupError("a bug of a handler")

    async with served(broken) as listener, talking(listener) as (reader, writer):
        writer.write(asked())
        assert await rest_of(reader) == b""
    assert "a request failed without an answer" in caplog.text


async def test_a_handler_that_forgets_to_answer_breaks_the_connection() -> None:
    async def forgetful(request: Request) -> None:
        return

    async with served(forgetful) as listener, talking(listener) as (reader, writer):
        writer.write(asked() + asked())
        assert await rest_of(reader) == b""


@pytest.mark.parametrize("is_left", [True, False])
async def test_an_answer_that_has_begun_is_not_followed_by_another(is_left: bool) -> None:
    """Nor does it end as a whole one does."""

    async def broken(request: Request) -> None:
        await request.begin_answer(200, ())
        await request.send_piece(b"begun")
        if not is_left:
            raise LookupError("a bug of a handler")

    async with served(broken) as listener, talking(listener) as (reader, writer):
        writer.write(asked() + asked())
        said = await rest_of(reader)
    assert said.count(b"HTTP/1.1 ") <= 1
    assert b"0\r\n\r\n" not in said


async def test_a_client_that_leaves_cancels_what_it_asked_for() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: Request) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async with served(endless) as listener, talking(listener) as (_, writer):
        writer.write(asked())
        await begun.wait()
        writer.transport.abort()
        await cancelled.wait()


async def test_whoever_writes_to_a_client_that_left_is_told() -> None:
    left, told = asyncio.Event(), asyncio.Queue[type[Exception]]()

    async def stubborn(request: Request) -> None:
        with suppress(asyncio.CancelledError):
            left.set()
            await asyncio.get_running_loop().create_future()
        for writing in (request.send(200, (), b"whole"), request.send_piece(b"some")):
            try:
                await writing
            except ConnectionResetError as error:
                told.put_nowait(type(error))

    async with served(stubborn) as listener, talking(listener) as (_, writer):
        writer.write(asked())
        await left.wait()
        writer.transport.abort()
        assert [await told.get(), await told.get()] == [ConnectionResetError] * 2


async def test_a_client_that_half_closes_gets_what_it_asked_for() -> None:
    handler = OneByOne()
    async with served(handler) as listener, talking(listener) as (reader, writer):
        writer.write(asked("/a") + asked("/b"))
        writer.write_eof()
        await handler.has_begun.wait()
        handler.go_on.release()
        handler.go_on.release()
        said = (await rest_of(reader)).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.endswith(b"[/b]")


@pytest.mark.parametrize("said", [b"", b"GET /", asked("/", "Content-Length: 9", method="POST") + b"half"])
async def test_a_client_that_half_closes_too_soon_is_gone(said: bytes) -> None:
    async with served(hello) as listener, talking(listener) as (reader, writer):
        writer.write(said)
        writer.write_eof()
        assert not (await rest_of(reader)).endswith(b"\r\n\r\n")


async def test_a_client_that_does_not_read_holds_its_answer_up_and_no_memory() -> None:
    """The pieces wait for their reader."""
    pieces = asyncio.Queue[int]()

    async def endless(request: Request) -> None:
        await request.begin_answer(200, ())
        for number in range(10_000):
            await request.send_piece(bytes(64 * 1024))
            pieces.put_nowait(number)

    async with served(endless, body_timeout="200ms") as listener, talking(listener) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(asked())
        await pieces.get()
        while listener._server._open:
            await asyncio.sleep(0.01)
        assert pieces.qsize() < 1000
        writer.transport.abort()

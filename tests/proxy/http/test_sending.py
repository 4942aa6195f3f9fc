"""Answers on their way out: what is large leaves in pieces, and is otherwise the same answer."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from policy.call import ClientReply
from proxy.http.replies import ForwardedReply, Taker
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.responses import SMALL_BYTES
from proxy.http.sending import PIECE_BYTES, send
from tests.proxy.http.requests import served
from tests.wire.raw import connect, request
from tests.wire.raw import send as ask

KEPT = request("/", None).replace(b"Connection: close\r\n", b"")


@pytest.mark.parametrize("size", [0, SMALL_BYTES, SMALL_BYTES + 1, 2 * PIECE_BYTES + 1])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_answer_is_the_same_in_one_piece_and_in_many(method: str, size: int) -> None:
    """The web UI shows the reason phrase of a failed upload, and nothing else of it: a long list of faults has it too."""

    async def answer(request: Request) -> None:
        reply = ClientReply(400, bytes(size), "text/x", (("X-More", "a"),), phrase="This name is too long.")
        await send(request, RequestRecord.begin(request, "::1"), reply)

    async with served(answer) as listener, aiohttp.ClientSession() as session:
        for _ in range(2):  # the connection carries a second call
            async with session.request(method, listener.url) as response:
                assert (response.status, response.reason) == (400, "This name is too long.")
                assert (response.content_type, response.headers["X-More"]) == ("text/x", "a")
                assert int(response.headers["Content-Length"]) == size
                assert await response.read() == (bytes(size) if method == "GET" else b"")


@pytest.mark.parametrize("size", [3, SMALL_BYTES + 1])
async def test_what_is_recorded_of_an_answer_has_left(size: int) -> None:
    left = list[tuple[bool, int, int]]()

    async def answer(request: Request) -> None:
        record = RequestRecord.begin(request, "::1")
        await send(request, record, ClientReply(201, bytes(size), "text/x"))
        left.append((request.has_ended, record.status, record.sent_bytes))

    async with served(answer) as listener:
        assert (await ask(listener.url, request("/", None))).body == bytes(size)
    assert left == [(True, 201, size)]


async def test_a_request_lasts_until_its_answer_has_left() -> None:
    """Until then its connection is nobody else's, and a gate that stops waits for it."""
    sent = [0, 0]
    waits, has_left = asyncio.Event(), asyncio.Event()

    async def longer_than_the_way(request: Request) -> None:
        request.prove("alice")
        await request.begin_answer(200, ())
        while not request.connection.has_unsent:
            sent[has_left.is_set()] += SMALL_BYTES
            request.write_piece(b"x" * SMALL_BYTES)
        waits.set()
        await request.end_answer()
        has_left.set()

    async with served(longer_than_the_way) as listener:
        reader, writer = await connect(listener.url)
        writer.write(KEPT)
        await waits.wait()
        (connection,) = listener._server._open
        assert not has_left.is_set()
        assert not connection.gives_way
        assert await length_of(reader) == sent[0]
        await has_left.wait()
        writer.write(KEPT)
        assert await length_of(reader) == sent[1]
        writer.close()


async def length_of(reader: asyncio.StreamReader) -> int:
    raw = bytearray()
    while not raw.endswith(b"\r\n0\r\n\r\n"):
        raw += await reader.read(SMALL_BYTES)
    return raw.partition(b"\r\n\r\n")[2].count(b"x")


class Pieces:
    """A body that comes in these pieces, and breaks with the last of them where that is an error."""

    def __init__(self, *pieces: bytes | memoryview | Exception) -> None:
        self.pieces = pieces

    async def pour(self, taker: Taker) -> None:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if not taker.take(piece):
                await taker.ready()


@pytest.mark.parametrize(
    ("fields", "on_the_wire"), [({"Content-Length": "4"}, b"abcd"), ({}, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")]
)
async def test_a_forwarded_body_goes_on_as_it_comes(fields: dict[str, str], on_the_wire: bytes) -> None:
    """An empty piece would be the end of a chunked body (RFC 9112, 7.1)."""
    sent = list[int]()

    async def answer(request: Request) -> None:
        record = RequestRecord.begin(request, "::1")
        body = Pieces(b"ab", b"", memoryview(b"cd"))
        await send(request, record, ForwardedReply(200, list(fields.items()), body))
        sent.append(record.sent_bytes)

    async with served(answer) as listener:
        answered = await ask(listener.url, request("/", None))
    assert (answered.body, sent) == (on_the_wire, [4])


async def test_a_forwarded_body_that_breaks_off_is_never_a_whole_one() -> None:
    broken = Pieces(b"ab", ConnectionResetError("the upstream went away"))

    async def answer(request: Request) -> None:
        await send(request, RequestRecord.begin(request, "::1"), ForwardedReply(200, [], broken))

    async with served(answer) as listener, aiohttp.ClientSession() as session, session.get(listener.url) as response:
        with pytest.raises(aiohttp.ClientError):
            await response.read()

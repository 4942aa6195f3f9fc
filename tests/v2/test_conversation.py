"""The recorder's reading of what went over a connection, and that it changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.v2.conversation import Frame, exchanges_of, frames_of
from tests.v2.recorder import recording

SENT = (
    b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST /b?c=d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    b"GET /c HTTP/1.1\r\n\r\n"
    b"DELETE /d HTTP/1.1\r\n\r\n"
    b"GET /e HTTP/1.1\r\n\r\n"
)
RECEIVED = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-One: 1\r\n\r\nuntil the end"
)


def test_each_answer_is_put_to_its_request() -> None:
    found = exchanges_of(SENT, RECEIVED)
    told = [(each.method, each.target, each.status, each.request_body, each.body, each.is_whole) for each in found]
    assert told == [
        ("HEAD", "/a", 200, b"", b"", True),
        ("POST", "/b?c=d", 201, b"abc", b"{}", True),
        ("GET", "/c", 200, b"", b"abcde", True),
        ("DELETE", "/d", 204, b"", b"", True),
        ("GET", "/e", 200, b"", b"until the end", True),
    ]
    assert found[1].path == "/b"
    assert found[4].headers == {"x-one": "1"}


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde", b"abcde"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc"),
    ],
)
def test_an_answer_that_was_cut_off_is_not_whole(received: bytes, body: bytes) -> None:
    (found,) = exchanges_of(b"GET / HTTP/1.1\r\n\r\n", received)
    assert (found.body, found.is_whole) == (body, False)


def test_a_request_without_an_answer_is_no_exchange() -> None:
    assert exchanges_of(b"GET / HTTP/1.1\r\n\r\n", b"") == []
    assert exchanges_of(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n") == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_frames_are_events_without_comments_and_without_what_is_cut_off(end: str) -> None:
    lines = (": comment", "", "event: status", 'data: {"a":1}', "", ":x", "event: progress", "data:{", "data: }", "")
    body = end.join((*lines, "event: output", "data: {"))
    assert frames_of(body.encode()) == [Frame("status", '{"a":1}'), Frame("progress", "{\n}")]


async def test_the_recorder_passes_every_byte_and_both_ends() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + head)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, recording(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as recorder:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(recorder.url.rpartition(":")[2]))
        writer.write(b"GET /path HTTP/1.1\r\nOdd:  field\r\n\r\n")
        assert await reader.read() == b"HTTP/1.1 200 OK\r\n\r\nGET /path HTTP/1.1\r\nOdd:  field\r\n\r\n"
        writer.close()
        (found,) = recorder.exchanges("GET", "/path")
        assert found.request_headers == {"odd": "field"}
    assert recorder.exchanges("POST") == []


async def test_the_recorder_passes_on_that_nobody_is_there() -> None:
    async with recording("http://127.0.0.1:1") as recorder:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(recorder.url.rpartition(":")[2]))
        assert await reader.read() == b""
        writer.close()
    assert recorder.exchanges() == []

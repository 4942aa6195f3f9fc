"""Chunked bodies (RFC 9112, 7.1): the same wherever they are cut, and nothing of what stands around or behind them."""

from __future__ import annotations

import pytest

from proxy.http.request import Request
from proxy.http.request_reader import MAX_TARGET_BYTES, MalformedRequest, RequestReader
from tests.proxy.http.heads import CHUNKED, MAX_HEAD_BYTES, lines, read

BODY = b'5;a=b;c="d"\r\nhello\r\n00B\r\n, wor\r\nld!!\r\n0;last\r\nX-Trailer: t\r\nHost: y\r\n\r\n'


def read_chunks(*pieces: bytes, head: bytes = CHUNKED) -> tuple[Request, bytes]:
    reader = RequestReader(MAX_HEAD_BYTES)
    request = read(head, reader)
    for piece in pieces:
        if not request.body.is_complete:
            reader.read_body(piece)
    if request.body.has_failed:
        raise MalformedRequest(str(request.body._error))
    got = b""
    while piece_of := request.body.take():
        got += piece_of
    return request, got


def test_chunks_are_read_at_whichever_byte_they_are_cut() -> None:
    for cut in range(len(BODY) + 1):
        request, got = read_chunks(BODY[:cut], BODY[cut:])
        assert got == b"hello, wor\r\nld!!"
        assert request.body.is_complete
        assert (request.headers.getall("Host"), "X-Trailer" in request.headers) == (["x"], False)
    assert read_chunks(*(BODY[at : at + 1] for at in range(len(BODY))))[1] == b"hello, wor\r\nld!!"


def test_a_body_that_is_not_whole_is_not_called_so() -> None:
    for cut in range(len(BODY)):
        assert not read_chunks(BODY[:cut])[0].body.is_complete


def test_what_follows_the_chunks_is_none_of_them() -> None:
    hidden = lines("POST /hidden HTTP/1.1", "Host: z", "Content-Length: 3") + b"abc"
    request, got = read_chunks(BODY + hidden)
    assert (got, request.raw_path, request.headers["Host"]) == (b"hello, wor\r\nld!!", "/", "x")
    assert not request.keep_alive


@pytest.mark.parametrize(
    "body",
    [b"x\r\n", b"-5\r\nhello", b"0x5\r\nhello", b"+5\r\nhello", b"5 \r\nhello", b" 5\r\nhello", b"5\nhello\n0\n\n", b"\r\n0\r\n\r\n",
     b"5\r\nhello!\r\n", b"5\r\nhello0\r\n\r\n", b"5;a\nb\r\nhello", b"5\rhello", b"f" * 17 + b"\r\nhello",
     b"0\r\nX-A : b\r\n\r\n", b"0\r\nX-A\r\n\r\n", b"0\r\n\n"],
)  # fmt: skip
def test_chunks_that_are_none(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_chunks(body)
    with pytest.raises(MalformedRequest):
        read_chunks(*(body[at : at + 1] for at in range(len(body))))


@pytest.mark.parametrize("endless", [b"0;" + b"a" * 1000, b"0\r\nX: " + b"a" * 1000, b"0\r\n" + b"X: 1\r\n" * 200])
def test_what_stands_around_chunks_has_a_bound(endless: bytes) -> None:
    """Extensions and trailers, of which nobody learns."""
    filler = endless[-6:] * 1000
    with pytest.raises(MalformedRequest, match="without an end"):
        read_chunks(endless, *[filler] * (2 * (MAX_HEAD_BYTES + MAX_TARGET_BYTES) // len(filler)))


def test_small_chunks_that_come_together_are_one_piece() -> None:
    """Each piece costs its reader more than a byte does, in memory and in time."""
    reader = RequestReader(MAX_HEAD_BYTES)
    body = read(CHUNKED, reader).body
    for last in (b"", b"0\r\n\r\n"):
        reader.read_body(b"1\r\nx\r\n" * 1000 + last)
        assert (body.take(), body.take(), body.is_complete) == (b"x" * 1000, None, last != b"")


def test_what_came_before_a_chunk_that_is_none_is_read() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    body = read(CHUNKED, reader).body
    reader.read_body(b"5\r\nhello\r\nno size\r\n")
    assert (body.take(), body.has_failed, body.is_complete) == (b"hello", True, False)


def test_large_chunks_are_no_overhead() -> None:
    piece = b"x" * 250_000
    request, got = read_chunks(*[b"%x\r\n%b\r\n" % (len(piece), piece)] * 4, b"0\r\n\r\n")
    assert (got, request.body.is_complete) == (piece * 4, True)


@pytest.mark.parametrize("line", ["POST / HTTP/1.1", "CONNECT x.example:1 HTTP/1.1"])
def test_chunks_are_read_where_an_upgrade_was_asked_for(line: str) -> None:
    head = lines(line, "Host: x", "Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked")
    assert read_chunks(BODY, head=head)[1] == b"hello, wor\r\nld!!"
    with pytest.raises(MalformedRequest):
        read_chunks(lines("GET / HTTP/1.1", "Host: x"), head=head)

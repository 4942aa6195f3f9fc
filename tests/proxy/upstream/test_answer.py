"""A head that came before is not parsed again: its answer is read as the first one was, however it comes and whatever follows it."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.http.errors import UpstreamUnavailable
from proxy.upstream import answer
from proxy.upstream.answer import AnswerReader, KnownHeads

HEADS = {
    "with a body": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nDate: now\r\n\r\n",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "that closes": b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n\r\n",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n",
    "without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 4\r\n\r\n',
    "without content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "behind an interim one": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
}
BODIES = [b"", b"ab", b"abcd", b"abcdef", b"4\r\nabcd\r\n0\r\n\r\n"]


def read(reader: AnswerReader, method: str, pieces: list[bytes]) -> dict[str, Any]:
    """All that a connection asks a reader, and what it raised."""
    reader.begin(method)
    failure = ""
    try:
        for piece in pieces:
            if piece:
                reader.feed(piece)
    except UpstreamUnavailable as error:
        failure = str(error)
    body = b""
    while reader.has_chunk():
        body += reader.take_chunk()
    return {
        "failure": failure,
        "status": reader.status,
        "fields": list(reader.fields),
        "length": reader.content_length,
        "has_head": reader.has_head,
        "has_body": reader.has_body,
        "is_complete": reader.is_complete,
        "may_be_followed": reader.may_be_followed,
        "body": body,
        "left": reader.left_bytes,
        "waiting": reader.waiting_bytes,
        "ends_well": reader.feed_end(),
    }


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("cut", ["whole", "head alone", "in the head", "byte by byte"])
def test_it_is_read_as_the_first_time(name: str, method: str, cut: str) -> None:
    head, heads = HEADS[name], KnownHeads()
    for body in BODIES:
        data = head + body
        pieces = {
            "whole": [data],
            "head alone": [head, body],
            "in the head": [data[:20], data[20:]],
            "byte by byte": [data[at : at + 1] for at in range(len(data))],
        }[cut]
        expected = read(AnswerReader(), method, pieces)
        for before in ([head], [data], pieces):
            read(AnswerReader(heads), "GET", before)
            assert read(AnswerReader(heads), method, pieces) == expected, (body, before)


def test_one_connection_carries_answers_that_are_known_and_others_in_turn() -> None:
    heads = KnownHeads()
    reader = AnswerReader(heads)
    for length in (4, 4, 2, 4, 0, 0, 4):
        found = read(reader, "GET", [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length])
        assert (found["body"], found["is_complete"], found["failure"]) == (b"x" * length, True, "")
        found = read(reader, "GET", [HEADS["chunked"], b"1\r\ny\r\n0\r\n\r\n"])
        assert (found["body"], found["is_complete"], found["failure"]) == (b"y", True, "")


def test_few_heads_are_kept_and_none_that_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MAX_KNOWN_HEADS", 3)
    heads = KnownHeads()
    for number in range(10):
        head = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 0\r\n\r\n" % number
        read(AnswerReader(heads), "GET", [head])
        assert heads.heads.get(head) is not None
        assert len(heads.heads) <= 3
    large = b"HTTP/1.1 200 OK\r\nX-Large: %s\r\nContent-Length: 0\r\n\r\n" % (b"x" * answer.MAX_KNOWN_BYTES)
    assert read(AnswerReader(heads), "GET", [large])["is_complete"]
    assert heads.heads.get(large) is None

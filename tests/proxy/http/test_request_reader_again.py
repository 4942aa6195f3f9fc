"""What a reader remembers of the head before changes nothing of how the next one is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.request_reader import MalformedRequest, RequestReader
from tests.proxy.http.heads import MAX_HEAD_BYTES, lines, read

NUMBERS = [
    "1",
    "7",
    "12",
    "345",
    "999999999999",
    "0",
    "00",
    "012",
    "+5",
    "-5",
    "5 5",
    "0x5",
    "",
    "5,5",
    "5\t",
    " 5",
    "\u0665",
    "9" * 19,
    "1e3",
]
NAMES = ["Content-Length", "content-length", "CONTENT-LENGTH", "X-Content-Length", "Content-Length "]
MORE = [
    "Transfer-Encoding: chunked",
    "Content-Length: 7",
    "Connection: close",
    "X: Content-Length: 7",
    "Expect: 100-continue",
    "Upgrade: x",
]


@st.composite
def a_head(draw: st.DrawFn) -> bytes:
    number = draw(st.sampled_from(NUMBERS[:5]) | st.sampled_from(NUMBERS))
    name = draw(st.just(NAMES[0]) | st.just(NAMES[0]) | st.sampled_from(NAMES))
    fields = [f"{name}: {number}", "A: b", *draw(st.lists(st.sampled_from(MORE), max_size=1))]
    first = draw(st.sampled_from(["POST /a HTTP/1.1", "POST /a HTTP/1.1", "POST /a HTTP/1.0", "PUT /b HTTP/1.1"]))
    return lines(first, "Host: x", *(fields if draw(st.integers(0, 3)) else fields[::-1]))


def read_as(head: bytes, reader: RequestReader) -> Any:
    """All of a request that its head tells, and all of its body; None for one that is refused."""
    try:
        request = read(head, reader)
    except MalformedRequest:
        return None
    told = [
        request.method,
        request.raw_path,
        request.version,
        request.head_bytes,
        request.keep_alive,
        request.is_upgrade,
    ]
    body = request.body
    length = body.length
    rest = b""
    if length is not None and 0 < length < 1000:
        rest = reader.read_body(b"x" * length + b"rest")
        assert body.is_complete
        assert body.take() == b"x" * length
    return told, list(request.headers.items()), length, rest


@settings(max_examples=200)
@given(st.lists(a_head(), min_size=2, max_size=6))
def test_each_head_is_read_as_if_it_were_the_first(heads: list[bytes]) -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    for head in heads:
        expected = read_as(head, RequestReader(MAX_HEAD_BYTES))
        assert read_as(head, reader) == expected
        if expected is None or not expected[0][4] or expected[0][5]:  # nothing follows on its connection
            return


@pytest.mark.parametrize("name", NAMES[:3])
def test_what_is_worked_out_of_a_head_is_shared_with_one_that_says_another_length(name: str) -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    first = read(lines("POST /a HTTP/1.1", "Host: x", f"{name}: 7", "A: b"), reader)
    reader.read_body(b"x" * 7)
    second = read(lines("POST /a HTTP/1.1", "Host: x", f"{name}: 1234", "A: b"), reader)
    assert second.of_head is first.of_head
    assert second.of_fields is first.of_fields
    assert (first.headers["Content-Length"], second.headers["Content-Length"]) == ("7", "1234")
    assert second.content_length == 1234
    reader.read_body(b"x" * 1234)
    other = read(lines("POST /a HTTP/1.1", "Host: x", f"{name}: 1234", "A: c"), reader)
    assert other.of_head is not first.of_head

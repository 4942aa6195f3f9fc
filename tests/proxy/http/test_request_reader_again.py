"""What a reader remembers of the head before changes nothing of how the next one is read."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.request_reader import MalformedRequest, RequestReader
from tests.proxy.http.heads import MAX_HEAD_BYTES, lines, read, read_some

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
KEYS = [
    "6f2c0a4e-0d8e-4b7e-8a49-0d2f7f0b6a11",
    "a",
    '"quoted"',
    "two words",
    " led",
    "trailing\t",
    "",
    "Content-Length: 9",
    "\u00e9",
    "a\tb",
    "a\x7f",
    "a\x00b",
    "a\rb",
    "a\nX: y",
    "a\r\n folded",
    "a\r\nContent-Length: 3",
    "k" * 255,
    "k" * 256,
]
KEY_NAMES = ["Idempotency-Key", "idempotency-key", "IDEMPOTENCY-KEY", "X-Idempotency-Key", "Idempotency-Key "]
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
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        key = draw(st.sampled_from(KEYS[:3]) | st.sampled_from(KEYS))
        key_name = draw(st.just(KEY_NAMES[0]) | st.sampled_from(KEY_NAMES))
        fields.insert(draw(st.sampled_from([0, 1, len(fields)])), f"{key_name}: {key}")
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


@pytest.mark.parametrize("name", KEY_NAMES[:3])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_worked_out_of_a_head_is_shared_with_one_that_has_another_key(name: str, is_first: bool) -> None:
    def head(key: str, length: int) -> bytes:
        fields = [f"{name}: {key}", f"Content-Length: {length}"]
        return lines("POST /a HTTP/1.1", "Host: x", *(fields if is_first else fields[::-1]), "A: b")

    reader = RequestReader(MAX_HEAD_BYTES)
    first = read(head("one", 7), reader)
    reader.read_body(b"x" * 7)
    second = read(head("another", 12), reader)
    assert second.of_head is first.of_head
    assert second.of_fields is first.of_fields
    assert (first.headers["Idempotency-Key"], second.headers["Idempotency-Key"]) == ("one", "another")
    assert (first.content_length, second.content_length) == (7, 12)
    assert second.head_bytes == len(head("another", 12)) - len("/a")
    reader.read_body(b"x" * 12)
    assert read(head("two words", 12), reader).of_head is not first.of_head


def test_what_may_be_too_large_is_read_as_if_it_were_the_first() -> None:
    def head(key: str) -> bytes:
        return lines("POST /a HTTP/1.1", "Host: x", f"Idempotency-Key: {key}")

    reader = RequestReader(len(head("some")))
    first = read(head("some"), reader)
    assert read(head("else"), reader).of_head is first.of_head
    assert read(head("longer"), reader).of_head is not first.of_head


MUTATIONS = 3000
_BYTES = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"0",
    b"7",
    b"k",
    b"\x00",
    b"\x80",
    b'"',
    b",",
    b"Content-Length: 3\r\n",
]


def mutated(head: bytes, random: Random) -> bytes:
    """With one to three changes somewhere before its end: bytes put in, taken out, or in the place of others."""
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(head) - 4)
        put = random.choice(_BYTES) if random.random() < 0.7 else bytes([random.randrange(256)])
        head = head[:at] + put * random.randint(0, 2) + head[at + random.randint(0, 2) :]
    end = head.find(b"\r\n\r\n")
    return head.rstrip(b"\r\n") + b"\r\n\r\n" if end < 0 else head[: end + 4]


def differing(seed: int, count: int) -> list[tuple[bytes, bytes]]:
    """Pairs of a head and one that comes after it on its connection, where that is read otherwise than on a connection of its own."""
    random, found = Random(seed), []
    for _ in range(count):
        fields = [
            f"Idempotency-Key: {random.choice(KEYS[:3])}",
            f"Content-Length: {random.choice(NUMBERS[:4])}",
            "A: b",
        ]
        random.shuffle(fields)
        first = lines("POST /a HTTP/1.1", "Host: x", *fields)
        second = mutated(first, random)
        reader = RequestReader(MAX_HEAD_BYTES)
        assert read_as(first, reader) is not None
        if read_as(second, reader) != read_as(second, RequestReader(MAX_HEAD_BYTES)):
            found.append((first, second))
    return found


def test_a_head_that_is_another_by_a_few_bytes_is_read_as_if_it_were_the_first() -> None:
    assert differing(1, MUTATIONS) == []


def read_in_pieces(head: bytes, ends: Iterable[int]) -> Any:
    """As `read_as`, of a reader that is shown the beginnings of a head that end there."""
    reader, looked_at = RequestReader(MAX_HEAD_BYTES), 0
    for end in ends:
        try:
            if read_some(head[:end], reader, looked_at) is not None:
                return read_as(head[:end], RequestReader(MAX_HEAD_BYTES))
        except MalformedRequest:
            return None
        looked_at = end
    raise AssertionError("a head has an end")


def test_a_head_is_the_same_however_it_is_cut() -> None:
    random, base = Random(2), lines("POST /a HTTP/1.1", "Host: x", "Idempotency-Key: one", "Content-Length: 7", "A: b")
    found = []
    for _ in range(MUTATIONS // 3):
        head = mutated(base, random).lstrip(b"\r\n")
        expected = read_as(head, RequestReader(MAX_HEAD_BYTES))
        some = sorted({*random.sample(range(1, len(head)), 5), len(head)})
        found.append(expected)
        assert read_in_pieces(head, range(1, len(head) + 1)) == read_in_pieces(head, some) == expected
    assert None in found
    assert any(found)

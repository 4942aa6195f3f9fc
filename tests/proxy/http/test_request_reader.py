"""Requests from bytes: one reading of each head, however it is cut, and none of what has two."""

from __future__ import annotations

import tracemalloc

import pytest

from proxy.http.request import NO_BODY
from proxy.http.request_reader import MAX_FIELDS, MAX_TARGET_BYTES, MalformedRequest, RequestReader
from tests.proxy.http.heads import CHUNKED, MAX_HEAD_BYTES, lines, read, read_some

# The request line (RFC 9112, 3).


@pytest.mark.parametrize(
    ("line", "method", "target", "version"),
    [
        ("GET / HTTP/1.1", "GET", "/", (1, 1)),
        ("GET / HTTP/1.0", "GET", "/", (1, 0)),
        ("POST /a/b?c=d&e HTTP/1.1", "POST", "/a/b?c=d&e", (1, 1)),
        ("DELETE /%2e%2E//x HTTP/1.1", "DELETE", "/%2e%2E//x", (1, 1)),
        ("OPTIONS * HTTP/1.1", "OPTIONS", "*", (1, 1)),
        ("GET http://x.example/a HTTP/1.1", "GET", "http://x.example/a", (1, 1)),
        ("GET /a?q=HTTP/1.0 HTTP/1.1", "GET", "/a?q=HTTP/1.0", (1, 1)),
        ("PROPFIND /a HTTP/1.1", "PROPFIND", "/a", (1, 1)),
    ],
)
def test_a_request_line(line: str, method: str, target: str, version: tuple[int, int]) -> None:
    request = read(lines(line, "Host: x"))
    assert (request.method, request.raw_path, request.version) == (method, target, version)


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / HTTP/2.0",
        "GET / HTTP/11",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET / http/1.1",
        "GET / RTSP/1.0",
        "GET / RTSP/1.1",
        "SETUP / RTSP/1.0",
        "SOURCE / ICE/1.0",
        "GET /",
        "GET",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "get / HTTP/1.1",
        "GOT / HTTP/1.1",
        "GE T / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET a HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1\nX: 1",
        "GET /\u00e9 HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "-GET / HTTP/1.1",
        "HTTP/1.1 200 OK",
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    with pytest.raises(MalformedRequest):
        read(lines(line, "Host: x"))


# Fields (RFC 9112, 5).


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("X-A: b", "X-A", "b"),
        ("X-A:b", "X-A", "b"),
        ("X-A: \t b c \t ", "X-A", "b c"),
        ("X-A:", "X-A", ""),
        ("X-A:  ", "X-A", ""),
        ("x-a: : b", "x-a", ": b"),
        ("X-A: \u00e9", "X-A", "\u00e9"),
        ("X-A: \udcff", "X-A", "\udcff"),
        ("!#$%&'*+-.^_`|~: b", "!#$%&'*+-.^_`|~", "b"),
        ("AUTHORIZATION: Bearer x ", "authorization", "Bearer x"),
    ],
)
def test_a_field(line: str, name: str, value: str) -> None:
    headers = read(lines("GET / HTTP/1.1", "Host: x", line, "X-Last: last")).headers
    assert headers.getall(name) == [value]
    assert (len(headers), headers["host"], headers["x-last"]) == (3, "x", "last")


@pytest.mark.parametrize(
    "line",
    [
        "X-A", "X-A : b", "X A: b", "X\tA: b", ": b", "X-\u00e9: b", "X-\x00: b", "X-A: \x00", "X-A: b\rc", "X-A: b\nc: d",
        "X-A: \x1b", "X-A: \x7f", "X-A: b\r\n folded", "X-A: b\r\n\tfolded", "X(A): b", "X/A: b", "Host: y", "host: x",
    ],
)  # fmt: skip
def test_a_field_that_is_none(line: str) -> None:
    with pytest.raises(MalformedRequest):
        read(lines("GET / HTTP/1.1", "Host: x", line))


def test_a_host_is_named_once() -> None:
    """RFC 9112, 3.2: HTTP/1.0 knows none yet, and an empty one is one."""
    assert read(lines("GET / HTTP/1.1", "Host:")).headers["Host"] == ""
    assert "Host" not in read(lines("GET / HTTP/1.0")).headers
    with pytest.raises(MalformedRequest, match="host"):
        read(lines("GET / HTTP/1.1", "X-Host: x"))


def test_fields_of_one_name_stay_several() -> None:
    request = read(lines("GET / HTTP/1.1", "Host: x", "Cookie: a", "cookie: b", "X-A: 1", "x-a: 2"))
    assert request.headers.getall("Cookie") == ["a", "b"]
    assert request.headers.getall("X-A") == ["1", "2"]


def test_so_many_fields_and_no_more() -> None:
    many = ["Host: x", *(f"X-{number}: 1" for number in range(1, MAX_FIELDS))]
    assert len(read(lines("GET / HTTP/1.1", *many)).headers) == MAX_FIELDS
    with pytest.raises(MalformedRequest, match="too many"):
        read(lines("GET / HTTP/1.1", "X-One: more", *many))


# How large, and where it ends.


def test_the_size_of_the_fields_is_told_without_the_target() -> None:
    short, long = (read(lines(f"GET /{'a' * size} HTTP/1.1", "Host: x")) for size in (1, 9000))
    assert short.head_bytes == long.head_bytes == len(lines("GET  HTTP/1.1", "Host: x"))


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX-A: ", b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 1000])
def test_a_head_without_end_is_refused_in_time(head: bytes) -> None:
    reader, bound = RequestReader(MAX_HEAD_BYTES), MAX_HEAD_BYTES + MAX_TARGET_BYTES
    assert read_some(head.ljust(bound, b"a"), reader) is None
    with pytest.raises(MalformedRequest, match="too large"):
        read_some(head.ljust(bound + 1, b"a"), reader)


def test_a_head_that_is_too_large_is_read_no_further_when_it_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURITY: many fields of a byte or two cost their reader far more than their bytes, and anybody may send them."""
    fields: list[bytes] = []
    monkeypatch.setattr(RequestReader, "on_header", lambda reader, name, value: fields.append(name))
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * ((MAX_HEAD_BYTES + MAX_TARGET_BYTES) // 5) + b"\r\n"
    with pytest.raises(MalformedRequest, match="too large"):
        read(head)
    assert fields == []


@pytest.mark.parametrize("first", [b"\x16\x03\x01", b"\x00", b" GET", b":", b"1"])
def test_what_begins_with_no_method_is_not_waited_for(first: bytes) -> None:
    with pytest.raises(MalformedRequest, match="method"):
        read_some(first, RequestReader(MAX_HEAD_BYTES))


def test_a_head_is_found_wherever_it_was_cut() -> None:
    head = lines("GET /a HTTP/1.1", "Host: x", "X-A: b")
    for cut in range(len(head)):
        reader = RequestReader(MAX_HEAD_BYTES)
        assert read_some(head[:cut], reader) is None
        found = read_some(head + b"GET /next", reader, looked_at=cut)
        assert found is not None
        assert (found[0].raw_path, found[1]) == ("/a", len(head))


# The frame of a body (RFC 9112, 6.3).


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        (["Content-Length: 0"], 0),
        (["Content-Length: 5"], 5),
        (["Content-Length: 5 "], 5),
        (["content-LENGTH:005"], 5),
        (["Content-Length: 999999999999999999"], 10**18 - 1),
        (["Transfer-Encoding: chunked"], None),
        (["transfer-encoding: Chunked"], None),
        (["Transfer-Encoding: chunked "], None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_has_one_frame(method: str, fields: list[str], length: int | None) -> None:
    request = read(lines(f"{method} / HTTP/1.1", "Host: x", *fields))
    assert request.body.length == length
    assert (request.body is NO_BODY) is (length == 0)
    assert request.body.is_complete is (length == 0)


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 0"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 0", "Content-Length: 0"],
        *(
            [f"Content-Length: {value}"]
            for value in ("", "+5", "-5", "5,5", "5, 5", "5 5", "0x5", "5.0", "1e1", "1_0", "\u0665", "9" * 19, "x")
        ),
        *(
            [f"Transfer-Encoding: {value}"]
            for value in ("", "gzip", "identity", "chunked, gzip", "gzip, chunked", "chunked, chunked", "xchunked",
                          "chunked;q=1", '"chunked"', "chunked,", ",chunked", "\x0bchunked")
        ),
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("more", [[], ["Connection: Upgrade", "Upgrade: websocket"]])
def test_two_frames_are_none(method: str, fields: list[str], more: list[str]) -> None:
    with pytest.raises(MalformedRequest):
        read(lines(f"{method} / HTTP/1.1", "Host: x", *fields, *more))


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(MalformedRequest):
        read(lines("POST / HTTP/1.0", "Transfer-Encoding: chunked"))


# What may follow.


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (lines("GET / HTTP/1.1", "Host: x"), True),
        (lines("GET / HTTP/1.1", "Host: x", "Connection: close"), False),
        (lines("GET / HTTP/1.1", "Host: x", "Connection: keep-alive, Close"), False),
        (lines("GET / HTTP/1.0", "Host: x"), False),
        (lines("GET / HTTP/1.0", "Host: x", "Connection: Keep-Alive"), True),
        (lines("POST / HTTP/1.1", "Host: x", "Content-Length: 3"), True),
        (CHUNKED, False),
    ],
)
def test_whether_another_request_may_follow(head: bytes, expected: bool) -> None:
    assert read(head).keep_alive is expected


UPGRADE = ["Connection: Upgrade", "Upgrade: websocket"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (UPGRADE, True),
        (UPGRADE[:1], False),
        (UPGRADE[1:], False),
        ([*UPGRADE, "Content-Length: 0"], True),
        ([*UPGRADE, "Content-Length: 3"], False),
        ([*UPGRADE, "Transfer-Encoding: chunked"], False),
    ],
)
def test_an_upgrade_has_no_body(fields: list[str], expected: bool) -> None:
    request = read(lines("GET / HTTP/1.1", "Host: x", *fields))
    assert request.is_upgrade is expected


@pytest.mark.parametrize("fields", [[], UPGRADE, ["Content-Length: 3"], [*UPGRADE, "Content-Length: 3"]])
def test_one_reader_reads_one_request_after_the_other(fields: list[str]) -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    for number in range(3):
        request = read(lines(f"PUT /{number} HTTP/1.1", "Host: x", *fields), reader)
        assert (request.raw_path, len(request.headers)) == (f"/{number}", 1 + len(fields))


def test_fields_that_are_the_same_are_read_once_and_others_are_not() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    head = lines("GET / HTTP/1.1", "Host: x", "X-API-Key: a")
    first = read(head, reader)
    first.of_fields["key"] = "a"
    assert read(head, reader).of_fields == {"key": "a"}
    for other in ("X-API-Key: b", "X-API-Key: a\r\nX-B: c", "x-api-key: a"):
        request = read(lines("GET / HTTP/1.1", "Host: x", other), reader)
        assert request.of_fields == {}
        assert request.headers["X-API-Key"] == other[11]
    assert read(head, reader).of_fields == {}, "the last alone is kept"


def test_a_large_head_is_forgotten_when_it_is_read() -> None:
    """A connection may be idle for long, and there may be thousands."""
    reader = RequestReader(256 * 1024)
    read(lines("GET / HTTP/1.1", "Host: x"), reader)
    head = lines(f"GET /{'a' * 50_000} HTTP/1.1", "Host: x", *(f"X-{number}: {'b' * 1000}" for number in range(100)))
    tracemalloc.start()
    try:
        read(head, reader)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 10_000


@pytest.mark.parametrize(
    "head",
    [
        lines("GET / HTTP/1.1", "Host: x", "Authorization : SECRET"),
        lines("GET /SECRET ?SECRET HTTP/1.1", "Host: x"),
        lines("SECRET / HTTP/1.1", "Host: x"),
        lines("GET / HTTP/1.1", "Host: x", "Content-Length: SECRET"),
        lines("GET / HTTP/1.1", "Host: x", "Transfer-Encoding: SECRET"),
        lines("GET / HTTP/1.1", "X-SECRET", "X: SECRET\x00"),
        lines("GET / SECRET/1.1", "X-SECRET: y"),
    ],
)
def test_what_is_refused_says_nothing_of_what_came(head: bytes) -> None:
    """SECURITY: a key may stand in it, and the text goes into the log."""
    with pytest.raises(MalformedRequest) as caught:
        read(head)
    assert "SECRET" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None

"""Bytes that are not one well-formed request: refused before anything is judged, and nothing of them is told or logged."""

from __future__ import annotations

import asyncio
import logging
import re

import orjson
import pytest

from tests.wire.conftest import Wire
from tests.wire.raw import GUARD_S, RawAnswer, connect, parse_answer, request

HEAD = b"POST /userdata/x.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer KEY\r\n"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"

FRAMING: dict[str, bytes] = {
    "CL and TE": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "TE and CL": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
    "two CL that differ": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "two CL that agree": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "CL plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "CL minus": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "CL hexadecimal": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "CL with a space": HEAD + b"Content-Length: 5 5\r\n\r\nhello",
    "CL huge": HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
    "CL empty": HEAD + b"Content-Length:\r\n\r\n",
    "CL underscore": HEAD + b"Content-Length: 1_0\r\n\r\nhello",
    "TE unknown": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "TE identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "TE twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "TE chunked not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKED,
    "TE hidden by a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "TE hidden by a tab": HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n" + CHUNKED,
    "TE hidden by a fold": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "TE in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED,
    "obs-fold": HEAD + b"X-A: 1\r\n X-B: 2\r\nContent-Length: 0\r\n\r\n",
    "fold first": HEAD.replace(b"Host", b" Host") + b"\r\n",
    "space before the colon": HEAD + b"X-A : 1\r\n\r\n",
    "no colon": HEAD + b"X-A\r\n\r\n",
    "empty name": HEAD + b": 1\r\n\r\n",
    "NUL in a name": HEAD + b"X-\x00A: 1\r\n\r\n",
    "NUL in a value": HEAD + b"X-A: 1\x002\r\n\r\n",
    "CR in a value": HEAD + b"X-A: 1\r2\r\n\r\n",
    "bare LF ends a line": HEAD + b"X-A: 1\nContent-Length: 5\r\n\r\nhello",
    "non-ASCII name": HEAD + b"X-\xc3\xa9: 1\r\n\r\n",
    "no Host": HEAD.replace(b"Host: x\r\n", b"") + b"\r\n",
    "another protocol": HEAD.replace(b"HTTP/1.1", b"RTSP/1.0") + b"\r\n",
    "two Hosts": HEAD + b"Host: y\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.7": HEAD.replace(b"HTTP/1.1", b"HTTP/3.7") + b"\r\n",
    "no version": b"GET /features KEY\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
    "huge field": HEAD + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n",
    "many fields": HEAD + b"".join(b"X-%d: 1\r\n" % index for index in range(300)) + b"\r\n",
}  # fmt: skip
CHUNKS: dict[str, bytes] = {
    "no number": b"x\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "too long": b"5\r\nhello!\r\n0\r\n\r\n",
    "overflow": b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n",
    "space": b"5 \r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
}

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] \d{3} ")


def told(answer: RawAnswer) -> None:
    """A refusal of what is not HTTP looks like every other one."""
    assert answer.status == 400, answer.raw
    assert answer.all("Server") == ["comfygate"]
    assert answer.all("Cache-Control") == ["private, no-store"]
    body = orjson.loads(answer.body)
    assert body["error"]["extra_info"]["request_id"] == answer.all("X-Request-Id")[0]
    assert body["error"]["details"], "which rule it breaks"


@pytest.mark.parametrize("name", FRAMING)
async def test_two_framings_are_none(wire: Wire, name: str) -> None:
    answer = await wire.send(FRAMING[name].replace(b"KEY", wire.key.encode()))
    told(answer)
    assert len(_STATUS_LINE.findall(answer.raw)) == 1
    assert wire.comfy.received == []


@pytest.mark.parametrize("name", CHUNKS)
async def test_broken_chunks_never_make_a_whole_body(wire: Wire, name: str) -> None:
    head = HEAD.replace(b"KEY", wire.key.encode()) + b"Transfer-Encoding: chunked\r\n\r\n"
    async with asyncio.timeout(GUARD_S):
        reader, writer = await connect(wire.gate.url)
        writer.write(head + CHUNKS[name])
        answer = await reader.read()
        writer.close()
    assert b" 200 " not in answer[:20]
    assert await wire.gate.status("GET", "/userdata/x.txt") == 404


@pytest.mark.parametrize("is_first", [True, False])
async def test_keys_stay_out(wire: Wire, caplog: pytest.LogCaptureFixture, is_first: bool) -> None:
    """A parser that quotes the line it could not read would write the key into the log, and into the answer."""
    caplog.set_level(logging.DEBUG)
    good = b"" if is_first else request("/features", wire.key).replace(b"Connection: close\r\n", b"")
    for bad in (b"Authorization: Bearer KEY\x00\r\n\r\n", b"X-API-Key : KEY\r\n\r\n", b"X KEY\r\n\r\n"):
        answer = await wire.send(
            good + b"GET /features HTTP/1.1\r\nHost: x\r\n" + bad.replace(b"KEY", wire.key.encode())
        )
        *_, last = _STATUS_LINE.finditer(answer.raw)
        told(parse_answer(answer.raw[last.start() :]))
        assert wire.key not in answer.raw.decode("latin-1")
    assert wire.key not in caplog.text
    assert wire.key.encode() not in wire.gate.log.getvalue()
    assert "could not be read" in caplog.text


async def test_a_connection_that_says_nothing_is_nothing(wire: Wire) -> None:
    _, writer = await connect(wire.gate.url)
    writer.close()
    await writer.wait_closed()
    assert await wire.gate.status("GET", "/features") == 200


async def test_pipelined_requests_are_answered_in_order_each_by_its_own_key(wire: Wire) -> None:
    first = request("/features", wire.key).replace(b"Connection: close\r\n", b"")
    second = request("/queue", None).replace(b"Connection: close\r\n", b"")
    answer = await wire.send(first + second + request("/users", wire.key))
    found = [int(part[:3]) for part in answer.raw.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 401, 200]
    assert [call.raw_path for call in wire.comfy.received] == ["/features", "/users"]


async def test_a_body_where_none_belongs_goes_nowhere(wire: Wire) -> None:
    """RFC 9110, 9.3.1: a GET's body has no meaning, and must not become the next request of a connection upstream."""
    smuggled = request("/free", None, method="POST")
    length = f"Content-Length: {len(smuggled)}"
    answer = await wire.ask("/features", length, body=smuggled)
    assert answer.status == 200
    call = wire.only()
    assert (call.body, "Content-Length" in call.headers, "Transfer-Encoding" in call.headers) == (b"", False, False)


async def test_trailers_go_nowhere(wire: Wire) -> None:
    body = b"5\r\nhello\r\n0\r\nX-Forwarded-For: 1\r\nAuthorization: Bearer x\r\n\r\n"
    answer = await wire.ask("/userdata/t.txt", "Transfer-Encoding: chunked", method="POST", body=body)
    assert answer.status == 200
    call = wire.only()
    assert call.body == b"hello"
    assert not {"X-Forwarded-For", "Authorization"} & set(call.headers)


async def test_chunk_extensions_are_read_and_dropped(wire: Wire) -> None:
    body = b"5;a=b\r\nhello\r\n0;x\r\n\r\n"
    assert (await wire.ask("/userdata/t.txt", "Transfer-Encoding: chunked", method="POST", body=body)).status == 200
    assert wire.only().body == b"hello"


async def test_http_1_0_gets_its_answer(wire: Wire) -> None:
    answer = await wire.send(request("/features", wire.key).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.status == 200
    assert orjson.loads(answer.body)

"""Connections that carry several requests, and those that their client half closes."""

from __future__ import annotations

import asyncio

import pytest

from tests.wire.conftest import Wire
from tests.wire.raw import GUARD_S, connect, parse_answer

HEAD = "Host: x\r\nAuthorization: Bearer {}\r\n"
FRAMED = {
    "chunked": "Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
    "by length": "Content-Length: 2\r\n\r\n{{}}",
}


def asked(wire: Wire, line: str, more: str = "\r\n") -> bytes:
    return f"{line} HTTP/1.1\r\n{HEAD}{more}".format(wire.key).encode()


async def record(wire: Wire, data: bytes, *, half_close: bool = False) -> bytes:
    """What comes until the gate hangs up."""
    async with asyncio.timeout(GUARD_S):
        reader, writer = await connect(wire.gate.url)
        writer.write(data)
        if half_close:
            writer.write_eof()
        said = await reader.read()
        writer.close()
        return said


@pytest.mark.parametrize("path", ["/queue", "/settings"])
async def test_nothing_follows_a_chunked_body(wire: Wire, path: str) -> None:
    """The connection ends with the answer: what came behind the body is never read as a request."""
    said = await record(wire, asked(wire, f"POST {path}", FRAMED["chunked"]) + asked(wire, "GET /features"))
    assert said.count(b"HTTP/1.1 ") == 1, said
    assert "close" in parse_answer(said).all("Connection")
    assert [call.raw_path for call in wire.comfy.received if call.raw_path == "/features"] == []


async def test_a_body_of_known_length_keeps_the_connection(wire: Wire) -> None:
    data = asked(wire, "POST /settings", FRAMED["by length"]) + asked(
        wire, "GET /features", "Connection: close\r\n\r\n"
    )
    assert (await record(wire, data)).count(b"HTTP/1.1 200 ") == 2


async def test_a_client_that_half_closes_gets_its_answer(wire: Wire) -> None:
    for line, more in (
        ("GET /features", "\r\n"),
        ("POST /settings", FRAMED["by length"]),
        ("GET /object_info", "\r\n"),
    ):
        said = await record(wire, asked(wire, line, more), half_close=True)
        final = said.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        assert final.startswith(b"HTTP/1.1 200 "), said[:200]
        answer = parse_answer(final)
        assert len(answer.body) == int(answer.all("Content-Length")[0])


async def test_requests_before_the_half_close_are_all_answered(wire: Wire) -> None:
    said = await record(wire, asked(wire, "GET /features") * 3, half_close=True)
    assert said.count(b"HTTP/1.1 200 ") == 3


async def test_a_body_that_ends_too_soon_is_none(wire: Wire) -> None:
    said = await record(wire, asked(wire, "POST /settings", "Content-Length: 9\r\n\r\n{{}}"), half_close=True)
    assert b" 200 " not in said
    assert wire.comfy.received == []

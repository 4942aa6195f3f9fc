"""The only door to ComfyUI: what goes wrong behind it becomes one of two errors, and what the client broke stays the client's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from policy.call import Opaque, UpstreamCall
from policy.violation import Reason, Violation
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.upstream.client import Upstream
from tests.proxy.upstream.takers import Quick
from tests.proxy.upstreams import GUARD_S, RawUpstream, saying, serving

NOWHERE = "http://127.0.0.1:9"
SHORT_S = 0.1


def get(*segments: str, **query: str) -> UpstreamCall:
    return UpstreamCall(
        "GET", tuple(Opaque(part) for part in segments), tuple((name, Opaque(value)) for name, value in query.items())
    )


@asynccontextmanager
async def door(url: str) -> AsyncIterator[Upstream]:
    upstream = Upstream(url, connect_timeout_s=GUARD_S)
    try:
        async with asyncio.timeout(GUARD_S):
            yield upstream
    finally:
        await upstream.stop()


async def reflect(request: web.BaseRequest) -> web.StreamResponse:
    """Tells what came."""
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [list(pair) for pair in request.headers.items()],
            "body": (await request.read()).decode(),
        }
    )


async def silent(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_sends_the_call_and_nothing_of_its_own() -> None:
    async with serving(reflect) as url, door(url) as upstream:
        call = UpstreamCall(
            "POST", (Opaque("a/b"), Opaque("ü ?#%")), (("q", Opaque("1&2=3")),), b'{"a":1}', "application/json"
        )
        reply = await upstream.ask(call, time_limit_s=GUARD_S)
    assert (reply.status, reply.content_type) == (200, "application/json; charset=utf-8")
    assert reply.value["method"] == "POST"
    assert reply.value["target"] == "/a%2Fb/%C3%BC%20%3F%23%25?q=1%262%3D3"
    assert reply.value["body"] == '{"a":1}'
    names = {name.lower() for name, _ in reply.value["headers"]}
    assert names == {"host", "accept-encoding", "content-type", "content-length"}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_joins_address_and_target(slash: str) -> None:
    async with serving(reflect) as url, door(url + slash) as upstream:
        reply = await upstream.ask(get("queue"), time_limit_s=GUARD_S)
        assert reply.value["target"] == "/queue"
        root = await upstream.ask(get(), time_limit_s=GUARD_S)
        assert root.value["target"] == "/"


async def test_dot_segments_are_sent_as_judged() -> None:
    async with serving(reflect) as url, door(url) as upstream:
        reply = await upstream.ask(get("a", "..%2f", "...", "b"), time_limit_s=GUARD_S)
    assert reply.value["target"] == "/a/..%252f/.../b"


async def test_cookies_and_redirects_are_not_followed() -> None:
    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        assert "Cookie" not in request.headers
        return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=1"})

    async with serving(redirect) as url, door(url) as upstream:
        for _ in range(2):
            assert (await upstream.ask(get("x"), time_limit_s=GUARD_S)).status == 302


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", [1]),
    ],
)
async def test_reads_json_where_it_is_json(reply: bytes, value: Any) -> None:
    async with saying(reply).run() as raw, door(raw.url) as upstream:
        assert (await upstream.ask(get("x"), time_limit_s=GUARD_S)).value == value


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_no_answer(reply: bytes) -> None:
    async with saying(reply).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamUnavailable) as caught:
            await upstream.ask(get("x"), time_limit_s=GUARD_S)
    assert caught.value.status == 502


async def test_nobody_there() -> None:
    async with door(NOWHERE) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.ask(get("x"), time_limit_s=GUARD_S)
        with pytest.raises(UpstreamUnavailable):
            await upstream.connect(get("ws"))


async def test_an_answer_too_large_to_filter() -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamUnavailable, match="too large"):
            await upstream.ask(get("x"), time_limit_s=GUARD_S, max_bytes=100)


async def test_silence_is_a_timeout() -> None:
    async with RawUpstream(silent).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.ask(get("x"), time_limit_s=SHORT_S)
        with pytest.raises(UpstreamTimeout):
            async with await upstream.open(get("x"), time_limit_s=SHORT_S):
                pass


async def test_silence_in_mid_answer_is_a_timeout() -> None:
    async def stall(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        await reader.read()

    async with RawUpstream(stall).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.ask(get("x"), time_limit_s=SHORT_S)
        async with await upstream.open(get("x"), time_limit_s=1.0) as stream:
            taker = Quick()
            with pytest.raises(UpstreamTimeout):
                await stream.pour(taker)
            assert taker.body == b"hel"


async def test_a_trickle_does_not_outlast_the_limit_of_ask() -> None:
    async def trickle(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(SHORT_S / 10)

    async with RawUpstream(trickle).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.ask(get("x"), time_limit_s=SHORT_S)


class Body:
    """A client's body. error: what it breaks with, after two chunks."""

    def __init__(self, error: Exception | None = None, *, is_endless: bool = False) -> None:
        self.error: Exception | None = None
        self._breaks_with = error
        self._is_endless = is_endless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a" * 1000
        yield b"b" * 1000
        while self._is_endless:
            yield b"c" * 65536
        if self._breaks_with is not None:
            self.error = self._breaks_with
            raise self._breaks_with


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "3000"}])
async def test_what_the_client_broke_with_is_raised_as_itself(headers: dict[str, str]) -> None:
    whole: list[bytes] = []

    async def read(request: web.BaseRequest) -> web.StreamResponse:
        whole.append(await request.read())
        return web.Response()

    error = Violation(Reason.BODY_TOO_LARGE, "too large")
    async with serving(read) as url, door(url) as upstream:
        with pytest.raises(Violation) as caught:
            async with await upstream.open(
                UpstreamCall("POST", (Opaque("x"),)),
                CIMultiDict(headers),
                Body(error),
                time_limit_s=GUARD_S,
            ):
                pass
    assert caught.value is error
    assert whole == []


async def test_an_upstream_that_takes_no_body_is_a_timeout() -> None:
    async def deaf(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    async with RawUpstream(deaf).run() as raw, door(raw.url) as upstream:
        with pytest.raises(UpstreamTimeout):
            async with await upstream.open(
                UpstreamCall("POST", (Opaque("x"),)),
                None,
                Body(is_endless=True),
                time_limit_s=SHORT_S,
            ):
                pass


async def test_an_upstream_may_answer_before_the_body_ends() -> None:
    async def early(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await reader.read(10_000_000)

    async with RawUpstream(early).run() as raw, door(raw.url) as upstream:
        body = Body(is_endless=True)
        call = UpstreamCall("POST", (Opaque("x"),))
        async with await upstream.open(call, None, body, time_limit_s=GUARD_S) as stream:
            assert (stream.status, await stream.body(10)) == (413, b"no")


async def test_leaving_early_ends_the_call_upstream() -> None:
    ended = asyncio.Event()

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        finally:
            ended.set()

    async with serving(endless) as url, door(url) as upstream:
        async with await upstream.open(get("x"), time_limit_s=GUARD_S) as stream:
            with pytest.raises(LookupError):
                await stream.pour(Quick(LookupError("enough")))
        await ended.wait()


@pytest.mark.parametrize(
    ("method", "reply", "expected"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", True),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", False),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nab", False),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", False),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", False),
    ],
)
async def test_small_is_what_is_known_to_be(method: str, reply: bytes, expected: bool) -> None:
    async with (
        saying(reply).run() as raw,
        door(raw.url) as upstream,
        await upstream.open(UpstreamCall(method, (Opaque("x"),)), time_limit_s=GUARD_S) as stream,
    ):
        assert stream.is_small is expected


async def test_stopping_what_never_started_is_fine() -> None:
    await Upstream(NOWHERE, 1.0).stop()


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("http://127.0.0.1:8188", "127.0.0.1:8188"),
        ("http://Comfy.example/", "comfy.example"),
        ("http://comfy.example:80", "comfy.example"),
        ("http://[::1]:8188", "[::1]:8188"),
        ("http://bücher.example:8188", "xn--bcher-kva.example:8188"),
    ],
)
def test_the_host_is_named_as_http_writes_it(url: str, field: str) -> None:
    assert Upstream(url, 1.0)._host_line == f"Host: {field}\r\n"

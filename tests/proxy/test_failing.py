"""When one side fails, the other one hears the truth: an honest status, or a transfer that is visibly broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, RawUpstream, comfy_like, saying, with_time_limit
from tests.wire.raw import connect, parse_answer, request

NOWHERE = "http://127.0.0.1:9"
BODY = b"x" * 200_000


def records(gate: Running) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in gate.log.getvalue().splitlines()]


class Watched:
    """An upstream that hangs at one point of its work, and notes when its client leaves."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.reached, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            if self.point == "answering":
                await response.prepare(request)
                await response.write(b"begun")
            if self.point == "receiving":
                await request.content.readany()
            self.reached.set()
            if self.point == "receiving":
                await request.content.read()
            else:
                await asyncio.get_running_loop().create_future()
        except (asyncio.CancelledError, OSError, aiohttp.ClientError, RuntimeError):
            self.left.set()
            raise
        return response


@pytest.mark.parametrize("point", ["thinking", "answering", "receiving"])
async def test_a_client_that_leaves_ends_the_call_upstream(tmp_path: Path, point: str) -> None:
    upstream = Watched(point)
    async with comfy_like(upstream) as url, running_gate(tmp_path, url) as gate, asyncio.timeout(GUARD_S):
        _, writer = await connect(gate.url)
        if point == "receiving":
            writer.write(
                request("/userdata/x", gate.keys["admin"], "Content-Length: 1000000", method="POST", body=b"x" * 1000)
            )
        else:
            writer.write(request("/models", gate.keys["admin"]))
        await upstream.reached.wait()
        writer.close()
        await upstream.left.wait()
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert [line["status"] for line in records(gate)] == [499]


@pytest.mark.parametrize(
    ("method", "target"), [("GET", "/models"), ("POST", "/userdata/x"), ("GET", "/view?filename=x"), ("GET", "/ws")]
)
async def test_an_upstream_that_is_down_is_a_502(tmp_path: Path, method: str, target: str) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "A" * 22 + "==",
    }
    async with running_gate(tmp_path, NOWHERE, wait=False) as gate:
        async with gate.call(method, target, headers=headers if target == "/ws" else {}) as response:
            body = await response.json()
        assert (response.status, body["error"]["type"]) == (502, "upstream_unavailable")
        assert int(response.headers["Retry-After"]) > 0
        assert records(gate)[-1]["reason"] == "upstream-unavailable"


async def test_an_upstream_that_comes_back_is_used_at_once(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="here")

    async with comfy_like(answer) as url:
        pass
    port = int(url.rsplit(":", 1)[1])
    async with running_gate(tmp_path, url, wait=False) as gate:
        assert await gate.status("GET", "/models") == 502
        server = web.Server(answer)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            assert await gate.status("GET", "/models") == 200
        finally:
            await runner.cleanup()


async def test_an_upstream_that_hangs_is_a_504_after_the_routes_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_time_limit(monkeypatch, 0.1)
    upstream = Watched("thinking")
    async with comfy_like(upstream) as url, running_gate(tmp_path, url) as gate:
        for method, target, body in (("GET", "/models", None), ("POST", "/userdata/x", b"hello")):
            async with gate.call(method, target, data=body) as response:
                answer = await response.json()
            assert (response.status, answer["error"]["type"]) == (504, "upstream_timeout")
        await upstream.left.wait()


async def test_an_upstream_that_reads_no_upload_is_a_504(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    with_time_limit(monkeypatch, 0.1)
    async with RawUpstream(deaf).run() as upstream, running_gate(tmp_path, upstream.url, wait=False) as gate:
        reader, writer = await connect(gate.url)
        writer.write(request("/userdata/x", gate.keys["admin"], "Content-Length: 50000000", method="POST"))
        writer.write(b"x" * 50_000_000)
        async with asyncio.timeout(GUARD_S):
            assert parse_answer(await reader.readuntil(b"\r\n\r\n")).status == 504
        writer.transport.abort()


@pytest.mark.parametrize(
    "head", [b"Content-Length: 300000\r\n\r\n" + BODY, b"Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + BODY + b"\r\n"]
)
async def test_an_answer_that_breaks_off_is_broken_for_the_client(tmp_path: Path, head: bytes) -> None:
    async with (
        saying(b"HTTP/1.1 200 OK\r\n" + head).run() as upstream,
        running_gate(tmp_path, upstream.url, wait=False) as gate,
    ):
        async with gate.call("GET", "/models") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert records(gate)[-1]["reason"] == "upstream-unavailable"


async def test_a_small_answer_that_breaks_off_is_a_502(tmp_path: Path) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
    async with saying(reply).run() as upstream, running_gate(tmp_path, upstream.url, wait=False) as gate:
        assert await gate.status("GET", "/models") == 502


async def test_an_answer_that_stalls_is_broken_for_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_time_limit(monkeypatch, 1.0)  # in which it begins
    async with comfy_like(Watched("answering")) as url, running_gate(tmp_path, url) as gate:
        async with gate.call("GET", "/models") as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
        assert records(gate)[-1]["reason"] == "upstream-timeout"


class Sink:
    """Notes which bodies came whole."""

    def __init__(self) -> None:
        self.calls = 0
        self.whole: list[int] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.calls += 1
        self.whole.append(len(await request.content.read()))
        return web.Response()


SMALL = 'max_upload_bytes = "64KiB"\nmax_prompt_bytes = "1KiB"'


async def test_a_body_whose_length_is_over_the_limit_never_begins(tmp_path: Path) -> None:
    sink = Sink()
    async with comfy_like(sink) as url, running_gate(tmp_path, url, server=SMALL) as gate:
        async with gate.call("POST", "/userdata/x", data=b"x" * 65537) as response:
            answer = await response.json()
        assert (response.status, answer["error"]["type"]) == (413, "body_too_large")
        assert "max_upload_bytes" in answer["error"]["details"]
        assert await gate.status("POST", "/prompt", data=b"x" * 1025) == 413
        assert sink.calls == 0
        assert await gate.status("POST", "/userdata/x", data=b"x" * 65536) == 200
        assert sink.whole == [65536]


async def test_a_chunked_body_over_the_limit_breaks_off_upstream(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    sink = Sink()
    async with comfy_like(sink) as url, running_gate(tmp_path, url, server=SMALL) as gate:
        for target in ("/userdata/x", "/prompt"):
            reader, writer = await connect(gate.url)
            writer.write(request(target, gate.keys["admin"], "Transfer-Encoding: chunked", method="POST"))
            writer.write(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
            answer = parse_answer(await reader.readuntil(b"\r\n\r\n"))
            assert answer.status == 413
            writer.close()
    assert sink.whole == []


@pytest.mark.parametrize("target", ["/userdata/x", "/prompt"])
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_body_that_stops_coming_is_a_408(tmp_path: Path, target: str, framing: str) -> None:
    sink = Sink()
    async with comfy_like(sink) as url, running_gate(tmp_path, url, server='body_timeout = "100ms"') as gate:
        reader, writer = await connect(gate.url)
        body = b"hello" if "Length" in framing else b"5\r\nhello\r\n"
        writer.write(request(target, gate.keys["admin"], framing, method="POST", body=body))
        async with asyncio.timeout(GUARD_S):
            assert parse_answer(await reader.readuntil(b"\r\n\r\n")).status == 408
        writer.close()
        assert records(gate)[-1]["reason"] == "body-timeout"
    assert sink.whole == []


async def test_a_body_that_ends_early_is_never_whole(tmp_path: Path) -> None:
    sink = Sink()
    async with comfy_like(sink) as url, running_gate(tmp_path, url) as gate:
        for framing, body in (("Content-Length: 10", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n")):
            _, writer = await connect(gate.url)
            writer.write(request("/userdata/x", gate.keys["admin"], framing, method="POST", body=body))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        assert await gate.status("POST", "/userdata/y", data=b"whole") == 200
        assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    assert sink.whole == [5]


async def test_a_good_client_beside_bad_ones_is_served(tmp_path: Path) -> None:
    sink = Sink()
    async with comfy_like(sink) as url, running_gate(tmp_path, url) as gate:
        writers = []
        for _ in range(50):
            _, writer = await connect(gate.url)
            writer.write(request("/userdata/x", gate.keys["admin"], "Content-Length: 10", method="POST", body=b"h"))
            writers.append(writer)
        assert await gate.status("POST", "/userdata/y", data=b"whole") == 200
        for writer in writers:
            writer.close()

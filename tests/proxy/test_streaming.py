"""Bodies through the gate: as they come, at the pace of the slower side, whole or visibly broken."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bench import memory
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S, Answer, RawUpstream, comfy_like, with_time_limit
from tests.wire.raw import connect, parse_answer, request, send

MIB = 1024**2
CHUNK = bytes(range(256)) * 256


def kernel_bytes(name: str) -> int:
    """What the kernel holds at most for one end of a connection. name: "rmem", of what was not read; "wmem", of what was not sent."""
    try:
        return int(Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split()[2])
    except FileNotFoundError:  # no Linux
        return 8 * MIB


HELD = 2 * (kernel_bytes("rmem") + kernel_bytes("wmem")) + 8 * MIB
"""Of a body of which nothing is read at its end: by the kernel, for two connections, and by the gate and both ends."""
TOTAL = HELD + 16 * MIB
LIMIT_S = 1.0
"""Of silence, in which ComfyUI, of the same process as all others, begins and goes on in any case."""
STALL_S = 0.3
"""A write that takes this long is pushed back on; a slow machine only makes the tests see it earlier."""


@asynccontextmanager
async def before(folder: Path, answer: Answer, **options: Any) -> AsyncIterator[Running]:
    async with comfy_like(answer) as url, running_gate(folder, url, **options) as gate, asyncio.timeout(2 * GUARD_S):
        yield gate


async def pieces(total: int = TOTAL) -> AsyncIterator[bytes]:
    for _ in range(total // len(CHUNK)):
        yield CHUNK


async def is_pushed_back(write: Any) -> bool:
    task = asyncio.ensure_future(write)
    _, waiting = await asyncio.wait((task,), timeout=STALL_S)
    if not waiting:
        await task
        return False
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return True


async def test_a_client_that_does_not_read_holds_the_upstream_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not punished for it by the route's time limit, which is ComfyUI's."""
    written, stalled = 0, asyncio.Event()

    async def source(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in pieces():
            writing = asyncio.ensure_future(response.write(chunk))
            if (await asyncio.wait((writing,), timeout=2 * LIMIT_S))[1]:
                stalled.set()
            await writing
            written += len(chunk)
        return response

    with_time_limit(monkeypatch, LIMIT_S)
    async with before(tmp_path, source) as gate, gate.call("GET", "/models") as response:
        await stalled.wait()
        assert written <= HELD
        digest, count = hashlib.sha256(), 0
        async for chunk in response.content.iter_any():
            digest.update(chunk)
            count += len(chunk)
    assert count == TOTAL
    assert digest.digest() == hashlib.sha256(CHUNK * (TOTAL // len(CHUNK))).digest()


async def test_an_upstream_that_does_not_read_holds_the_client_back(tmp_path: Path) -> None:
    go_on, got = asyncio.Event(), hashlib.sha256()

    async def sink(request: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        async for chunk in request.content.iter_any():
            got.update(chunk)
        return web.json_response({"length": request.headers["Content-Length"]})

    async with before(tmp_path, sink) as gate:
        reader, writer = await connect(gate.url)
        head = request("/userdata/x.bin", gate.keys["admin"], f"Content-Length: {TOTAL}", method="POST")
        writer.write(head)
        written = 0
        async for chunk in pieces():
            writer.write(chunk)
            written += len(chunk)
            if not go_on.is_set() and await is_pushed_back(writer.drain()):
                assert written <= HELD
                go_on.set()
            await writer.drain()
        assert go_on.is_set()
        answer = parse_answer(await reader.read())
        writer.close()
    assert orjson.loads(answer.body) == {"length": str(TOTAL)}
    assert got.digest() == hashlib.sha256(CHUNK * (TOTAL // len(CHUNK))).digest()


async def test_the_gate_grows_by_little_however_large_the_body() -> None:
    figures = await asyncio.to_thread(memory.measure, 64 * MIB)
    assert figures.sent_bytes == figures.received_bytes == 64 * MIB
    assert figures.upload_growth_bytes < memory.MAX_GROWTH_BYTES
    assert figures.download_growth_bytes < memory.MAX_GROWTH_BYTES


async def test_an_asset_is_hashed_as_it_comes() -> None:
    assert await asyncio.to_thread(memory.measure_asset, 200 * MIB) < memory.MAX_ASSET_GROWTH_BYTES


async def test_chunked_bodies_pass_chunk_by_chunk(tmp_path: Path) -> None:
    """Each side hears what the other said before the rest of it is sent."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        assert "Content-Length" not in request.headers
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            heard.put_nowait(chunk)
            await response.write(chunk.upper())
        return response

    say: asyncio.Queue[bytes] = asyncio.Queue()

    async def spoken() -> AsyncIterator[bytes]:
        while word := await say.get():
            yield word

    async with before(tmp_path, echo) as gate:
        say.put_nowait(b"one")
        async with gate.call("POST", "/userdata/x.txt", data=spoken()) as response:
            assert await response.content.readany() == b"ONE"
            say.put_nowait(b"two")
            assert await response.content.readany() == b"TWO"
            say.put_nowait(b"")
            assert await response.content.read() == b""
    assert [heard.get_nowait() for _ in range(heard.qsize())] == [b"one", b"two"]


async def test_ranges_and_conditions_are_comfyuis(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(CHUNK * 3)

    async def files(request: web.BaseRequest) -> web.StreamResponse:
        return web.FileResponse(file)

    async with before(tmp_path, files) as gate:
        async with gate.call("GET", "/view?filename=x") as whole:
            assert await whole.read() == CHUNK * 3
            etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
        cases: list[tuple[dict[str, str], int, bytes]] = [
            ({"Range": "bytes=10-19"}, 206, CHUNK[10:20]),
            ({"Range": "bytes=-5"}, 206, CHUNK[-5:]),
            ({"Range": f"bytes={len(CHUNK)}-"}, 206, CHUNK * 2),
            ({"Range": "bytes=9999999-"}, 416, b""),
            ({"If-None-Match": etag}, 304, b""),
            ({"If-None-Match": '"other"'}, 200, CHUNK * 3),
            ({"If-Modified-Since": modified}, 304, b""),
            ({"If-Range": modified, "Range": "bytes=0-0"}, 206, CHUNK[:1]),
            ({"If-Match": '"other"'}, 412, b""),
        ]
        for headers, status, body in cases:
            async with gate.call("GET", "/view?filename=x", headers=headers) as response:
                assert (response.status, await response.read()) == (status, body), headers
                assert response.headers.get("Content-Range", "").startswith("bytes") is (status in (206, 416))
        async with gate.call("HEAD", "/view?filename=x") as response:
            assert (response.status, response.headers["Content-Length"]) == (200, str(3 * len(CHUNK)))
            assert response.headers["ETag"] == etag
            assert await response.read() == b""


@pytest.mark.parametrize("size", [100, 200_000])
async def test_content_encodings_pass_untouched(tmp_path: Path, size: int) -> None:
    packed = gzip.compress(hashlib.sha256(b"x").hexdigest().encode() * size)
    seen: list[tuple[str, bytes]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.headers.get("Content-Encoding", ""), await request.content.read()))
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async with (
        comfy_like(answer) as url,
        running_gate(tmp_path, url) as gate,
        gate.call("GET", "/models", headers={"Accept-Encoding": "gzip"}) as response,
    ):
        assert (response.headers["Content-Encoding"], await response.read()) == ("gzip", packed)
    assert seen == [("", b"")]


async def test_an_encoded_upload_passes_untouched(tmp_path: Path) -> None:
    packed = gzip.compress(b"x" * 1000)
    seen: list[tuple[str, bytes]] = []

    async def answer(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((head.decode(), await reader.readexactly(len(packed))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with RawUpstream(answer).run() as upstream, running_gate(tmp_path, upstream.url, wait=False) as gate:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        assert await gate.status("POST", "/userdata/x", data=packed, headers=headers) == 200
    assert seen[0][1] == packed
    assert "Content-Encoding: gzip\r\n" in seen[0][0]


async def test_continue_comes_after_the_credential_was_checked(gate: Running) -> None:
    for key, expected in (
        (None, 401),
        ("cg_00000000_" + "a" * 43, 401),
        (gate.keys["mallory"], 403),
        (gate.keys["admin"], 413),
    ):
        reader, writer = await connect(gate.url)
        target = "/free" if expected == 403 else "/userdata/x.txt"
        length = 10**12 if expected == 413 else 5
        writer.write(request(target, key, "Expect: 100-continue", f"Content-Length: {length}", method="POST"))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert parse_answer(answer).status == expected
        writer.close()


async def test_continue_is_said_when_the_body_is_wanted(gate: Running) -> None:
    for target, body in (("/userdata/x.txt", b"hello"), ("/queue", b'{"clear": false}')):
        reader, writer = await connect(gate.url)
        lines = ("Expect: 100-continue", f"Content-Length: {len(body)}")
        writer.write(request(target, gate.keys["admin"], *lines, method="POST"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert parse_answer(await reader.read()).status == 200
        writer.close()
    assert gate.comfy is not None
    assert all("Expect" not in call.headers for call in gate.comfy.received)


@pytest.mark.parametrize("who", ["alice", "admin"])
async def test_a_file_of_no_bytes_is_one(gate: Running, who: str) -> None:
    """With a length of 0, without a length, and in no chunks."""
    for number, framing in enumerate(("Content-Length: 0", "", "Transfer-Encoding: chunked")):
        target, body = f"/userdata/empty-{number}.json", b"0\r\n\r\n" if "chunked" in framing else b""
        data = request(target, gate.keys[who], *filter(None, (framing,)), method="POST", body=body)
        assert (await send(gate.url, data)).status == 200, framing
        async with gate.call("GET", target, who) as answer:
            assert (answer.status, await answer.read()) == (200, b""), framing

"""A credential that dies while its request is under way: nothing that it began gets through, and nothing of it stays open."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from proxy.auth import key_file
from tests.contract.driver import png, saving
from tests.harness import Running
from tests.matrix.world import World
from tests.proxy.upstreams import GUARD_S

BODY = orjson.dumps({"prompt": saving("late", 1)})


@pytest.fixture
async def gate(world: World) -> Running:
    world.running.extra["base"] = world.base
    world.running.extra["before"] = await jobs_of(world.running)
    return world.running


async def jobs_of(gate: Running) -> set[str]:
    """Of everybody; a real ComfyUI has some of earlier tests."""
    queue, history = [await gate.json("GET", path, "admin") for path in ("/queue", "/history")]
    return {item[1] for part in queue.values() for item in part} | set(history)


@asynccontextmanager
async def half_sent(gate: Running, path: str, body: bytes, kind: str) -> AsyncIterator[tuple[Any, Any, bytes]]:
    """A request of alice's with all but the last bytes of its body on the way; the streams, and those bytes."""
    url = URL(gate.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAuthorization: Bearer {gate.keys['alice']}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body[:-8]
    )
    while not gate.gate.pipeline.running._requests:
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(GUARD_S):
            yield reader, writer, body[-8:]
    finally:
        writer.transport.abort()


def revoke(gate: Running) -> None:
    key_file.revoke_key(gate.config_file, gate.keys["alice"].split("_")[1])


def multipart(name: str) -> tuple[bytes, str]:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="' + name.encode() + b'"\r\n'
        b"Content-Type: image/png\r\n\r\n" + png() + b"\r\n--b--\r\n"
    )
    return body, "multipart/form-data; boundary=b"


async def has_run_nothing(gate: Running) -> bool:
    assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    before: set[str] = gate.extra["before"]
    return await jobs_of(gate) <= before


def files_of(gate: Running, pattern: str) -> list[Path]:
    """On ComfyUI's disk, where it can be seen."""
    base = gate.extra["base"]
    return [] if base is None else list((base / "input").rglob(pattern))


async def answer_or_end(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


async def test_a_submission_that_was_held_back_does_not_run(gate: Running) -> None:
    async with half_sent(gate, "/prompt", BODY, "application/json") as (reader, writer, rest):
        revoke(gate)
        assert await gate.gate.reload(gate.config_file)
        with suppress(ConnectionResetError):
            writer.write(rest)
            await writer.drain()
        assert b" 200 " not in await answer_or_end(reader)
    assert await has_run_nothing(gate)


async def test_an_upload_that_was_held_back_is_not_stored(gate: Running) -> None:
    body, kind = multipart("late.png")
    async with half_sent(gate, "/upload/image", body, kind) as (reader, writer, rest):
        revoke(gate)
        assert await gate.gate.reload(gate.config_file)
        with suppress(ConnectionResetError):
            writer.write(rest)
            await writer.drain()
        assert b" 200 " not in await answer_or_end(reader)
    assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    assert not files_of(gate, "late*.png")


@pytest.mark.parametrize("what", ["/prompt", "/upload/image"])
async def test_what_waits_is_looked_at_again_before_comfyui_is_asked(
    gate: Running, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between two looks at all requests: the last bytes come in the same moment in which the key dies."""
    monkeypatch.setattr(gate.gate.pipeline.running, "cut_dead", lambda: 0)
    body, kind = (BODY, "application/json") if what == "/prompt" else multipart("late.png")
    async with half_sent(gate, what, body, kind) as (reader, writer, rest):
        revoke(gate)
        assert await gate.gate.reload(gate.config_file)
        writer.write(rest)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401")
        assert b"credential_ended" in await reader.readuntil(b"}")
    assert await has_run_nothing(gate)
    assert not files_of(gate, "late*.png")


async def test_a_download_is_cut_off(world: World) -> None:
    gate = world.running
    await world.alice.put("large.png", b"\x89PNG\r\n\x1a\n" + bytes(64 * 1024**2), overwrite="true")
    timeout = aiohttp.ClientTimeout(total=GUARD_S)
    url = gate.address("/view?filename=large.png&type=input")
    async with (
        aiohttp.ClientSession(read_bufsize=1024, timeout=timeout) as session,
        session.get(url, headers=gate.headers("alice")) as reply,
    ):
        assert reply.status == 200
        await reply.content.read(1024)
        revoke(gate)
        assert await gate.gate.reload(gate.config_file)
        with pytest.raises(aiohttp.ClientError):
            await reply.read()
    assert await gate.gate.pipeline.running.wait_until_idle(GUARD_S)
    assert any(orjson.loads(line).get("reason") == "credential-ended" for line in gate.log.getvalue().splitlines())


async def test_a_tenant_that_is_taken_out_while_its_requests_wait_is_answered(
    gate: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No bug of the gate's own, wherever they wait: its credential has ended."""
    limiter = gate.gate.dependencies.limiter
    acquire, waiting, go_on = limiter.acquire, asyncio.Semaphore(0), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        waiting.release()
        await go_on.wait()
        return await acquire(*arguments)

    monkeypatch.setattr(limiter, "acquire_at_once", lambda *_: None)  # as where Redis counts
    monkeypatch.setattr(limiter, "acquire", slow)
    monkeypatch.setattr(gate.gate.pipeline.running, "cut_dead", lambda: None)  # it would answer none of them
    calls = [("GET", "/queue", {}), ("POST", "/prompt", {"data": BODY}), ("GET", "/view?filename=a.png", {})]
    async with asyncio.timeout(GUARD_S):
        asked = [asyncio.ensure_future(gate.status(method, path, "mallory", **more)) for method, path, more in calls]
        for _ in calls:
            await waiting.acquire()
        key_file.revoke_key(gate.config_file, gate.keys["mallory"].split("_")[1])
        text = gate.config_file.read_text(encoding="utf-8")
        text = re.sub(r"\[tenants\.mallory\]\n(?:functions = .*\n)?", "", text)
        gate.config_file.write_text(text, encoding="utf-8")
        assert await gate.gate.reload(gate.config_file)
        go_on.set()
        assert await asyncio.gather(*asked) == [401, 401, 401]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]

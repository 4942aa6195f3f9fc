"""Connections that one tenant, or a stranger, holds: nobody else waits for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from policy.principal import TenantId
from proxy.limits.brake import FREE
from tests.harness import running_gate
from tests.proxy.upstreams import GUARD_S, comfy_like
from tests.wire.raw import connect, request

LIMITED = '\n[tenants.carol]\nlimits = "few"\n[limits.few]\nconcurrent_requests = 4\nrequests = "100000/minute"\n'
PICTURE = b"\x89PNG" + bytes(16 * 1024**2)


async def test_a_tenant_that_reads_nothing_shuts_nobody_out(tmp_path: Path) -> None:
    asked = asyncio.Queue[str]()

    async def picture(request: web.BaseRequest) -> web.StreamResponse:
        asked.put_nowait(request.path)
        return web.Response(body=PICTURE, content_type="image/png")

    async with (
        comfy_like(picture) as url,
        running_gate(tmp_path, url, server='max_connections = 12\nbody_timeout = "400ms"') as gate,
        asyncio.timeout(GUARD_S),
    ):
        silent = []
        for _ in range(12):
            _, writer = await connect(gate.url)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request("/view?filename=a.png", gate.keys["mallory"]))
            await asked.get()
            silent.append(writer)
        async with gate.session.get(gate.url + "/gate/health") as health:
            assert health.status == 200
        while await gate.status("GET", "/users", "alice") != 200:
            await asyncio.sleep(0.05)
        for writer in silent:
            writer.transport.abort()


async def test_a_tenants_requests_wait_for_each_other_and_for_nobody_else(tmp_path: Path) -> None:
    running, most, go_on = 0, 0, asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await go_on.wait()
        running -= 1
        return web.Response(body=b"x")

    full = asyncio.Event()
    more = "\n[limits.few]\nconcurrent_requests = 4\n"
    async with comfy_like(slow) as url, running_gate(tmp_path, url, more=more) as gate, asyncio.timeout(GUARD_S):
        text = gate.config_file.read_text(encoding="utf-8")
        gate.config_file.write_text(
            text.replace("[tenants.mallory]", '[tenants.mallory]\nlimits = "few"'), encoding="utf-8"
        )
        assert await gate.gate.reload(gate.config_file)
        many = [asyncio.ensure_future(gate.status("GET", "/view?filename=a.png", "mallory")) for _ in range(20)]
        await full.wait()
        refused = await asyncio.gather(*(t for t in many if t.done()))
        assert refused == []
        assert await gate.status("GET", "/users", "alice") == 200
        go_on.set()
        statuses = await asyncio.gather(*many)
        assert (set(statuses), most) == ({200}, 4)


async def test_who_holds_back_the_bodies_of_refused_requests_shuts_nobody_out(tmp_path: Path) -> None:
    async with (
        comfy_like(nothing) as url,
        running_gate(tmp_path, url, server="max_connections = 12") as gate,
        asyncio.timeout(GUARD_S),
    ):
        held = []
        for _ in range(12):
            reader, writer = await connect(gate.url)
            asked = request("/no/such/route", gate.keys["mallory"], "Content-Length: 1000", method="POST")
            writer.write(asked.replace(b"Connection: close\r\n", b""))
            assert (await reader.readuntil(b"\r\n")).split()[1] == b"404"
            held.append(writer)
        assert await gate.status("GET", "/users", "alice") == 200
        for writer in held:
            writer.transport.abort()


async def test_who_is_told_late_to_wait_shuts_nobody_out(tmp_path: Path) -> None:
    more = '\n[limits.few]\nrequests = "1/hour"\n'
    tenants = '[tenants.alice]\n[tenants.mallory]\nlimits = "few"\n'
    async with (
        comfy_like(nothing) as url,
        running_gate(tmp_path, url, server="max_connections = 12", more=more, tenants=tenants) as gate,
        asyncio.timeout(GUARD_S),
    ):
        asked = request("/users", gate.keys["mallory"]).replace(b"Connection: close\r\n", b"")
        for _ in range(1 + FREE):
            await gate.status("GET", "/users", "mallory")
        brake = gate.gate.dependencies.limiter.brake
        held = []
        for number in range(12):
            _, writer = await connect(gate.url)
            writer.write(asked)
            held.append(writer)
            while brake.waiting(TenantId("mallory")) <= number:
                await asyncio.sleep(0)
        assert await gate.status("GET", "/users", "alice") == 200
        assert brake.waiting(TenantId("mallory")) >= 11, "they wait longer than this took"
        for writer in held:
            writer.transport.abort()


async def test_who_fails_to_log_in_from_many_addresses_shuts_nobody_out(tmp_path: Path) -> None:
    more = '\n[limits.logins]\ndelay = "4s"\n'
    async with (
        comfy_like(nothing) as url,
        running_gate(tmp_path, url, server="max_connections = 12", more=more) as gate,
        asyncio.timeout(GUARD_S),
    ):
        logins = gate.gate.dependencies.limiter.logins
        held = []
        for number in range(12):
            _, writer = await connect(gate.url)
            writer.write(request("/users", f"cg_{number:08x}_guess", f"CF-Connecting-IP: 192.0.2.{number}"))
            held.append(writer)
            while logins._slowed <= number:
                await asyncio.sleep(0)
        assert await gate.status("GET", "/users", "alice") == 200
        assert logins._slowed >= 11, "they wait longer than this took"
        for writer in held:
            writer.transport.abort()


async def nothing(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({})


@pytest.mark.parametrize("path", ["/gate/login", "/prompt"])
async def test_a_stranger_that_holds_its_bodies_back_shuts_nobody_out(path: str, tmp_path: Path) -> None:
    async with (
        comfy_like(nothing) as url,
        running_gate(tmp_path, url, server="max_connections = 12") as gate,
        asyncio.timeout(GUARD_S),
    ):
        held = []
        for _ in range(12):
            reader, writer = await connect(gate.url)
            head = f"POST {path} HTTP/1.1\r\nHost: gate\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n")
            assert answer.split()[1] == (b"100" if path == "/gate/login" else b"401")
            writer.write(b"k")
            held.append(writer)
        assert await gate.status("GET", "/users", "alice") == 200
        for writer in held:
            writer.transport.abort()


@pytest.mark.parametrize("is_known", [False, True], ids=["a stranger", "who brought a key once"])
async def test_who_leaves_answers_unread_without_a_key_shuts_nobody_out(is_known: bool, tmp_path: Path) -> None:
    async with (
        comfy_like(nothing) as url,
        running_gate(tmp_path, url, server="max_connections = 12") as gate,
        asyncio.timeout(GUARD_S),
    ):
        asked = b"GET /gate/login HTTP/1.1\r\nHost: gate\r\n\r\n" * 1000
        unread = []
        for _ in range(12):
            reader, writer = await connect(gate.url)
            if is_known:
                writer.write(request("/users", gate.keys["mallory"]).replace(b"Connection: close\r\n", b""))
                assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            while writer.transport.get_write_buffer_size() == 0:  # until the gate takes no more
                writer.write(asked)
                await asyncio.sleep(0)
            unread.append(writer)
        assert await gate.status("GET", "/users", "alice") == 200
        for writer in unread:
            writer.transport.abort()

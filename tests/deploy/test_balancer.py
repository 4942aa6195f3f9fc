"""The balancer's own configuration in a real nginx: each client stays at one gate, and goes to the other one when that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from standin import StandIn
from tests.deploy.nginx import GATE_LINE, SHIPPED, balanced
from tests.harness import running_gate
from tests.ports import free_port
from tests.programs import needs

CLIENTS = [f"203.0.113.{number}" for number in range(1, 41)]


def test_both_differ_in_the_gates_names_alone() -> None:
    compose, cluster = (GATE_LINE.sub(r"\1GATE\2", file.read_text(encoding="utf-8")) for file in SHIPPED)

    assert compose == cluster


@asynccontextmanager
async def named_server(name: str) -> AsyncIterator[str]:
    """Answers with its name and what it was told of the client; in the place of a gate, which does not say which one it is."""

    async def answer(request: web.Request) -> web.Response:
        told = request.headers.get("CF-Connecting-IP", "")
        return web.json_response({"name": name, "client": told, "path": request.raw_path, "host": request.host})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def who_answers(session: aiohttp.ClientSession, base: str, client: str) -> str:
    async with session.get(f"{base}/queue", headers={"CF-Connecting-IP": client}) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["name"])


@needs("nginx")
async def test_each_client_stays_at_one_gate(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        gates = [
            await first.enter_async_context(named_server("gate-1")),
            await stack.enter_async_context(named_server("gate-2")),
        ]
        base, _ = await stack.enter_async_context(balanced(tmp_path, gates))
        session = await stack.enter_async_context(aiohttp.ClientSession())

        before = {client: await who_answers(session, base, client) for client in CLIENTS}
        assert set(before.values()) == {"gate-1", "gate-2"}
        assert {client: await who_answers(session, base, client) for client in reversed(CLIENTS)} == before

        await first.aclose()
        assert {await who_answers(session, base, client) for client in CLIENTS} == {"gate-2"}


@needs("nginx")
async def test_what_a_client_says_of_itself_is_believed_of_the_tunnel_alone(tmp_path: Path) -> None:
    async with (
        named_server("gate-1") as gate,
        balanced(tmp_path, [gate, gate]) as (tunnel, local),
        aiohttp.ClientSession(headers={"CF-Connecting-IP": "203.0.113.9"}) as session,
    ):
        async with session.get(f"{tunnel}/queue", headers={"Host": "comfy.example.com"}) as response:
            told = await response.json()
            assert (told["client"], told["host"]) == ("203.0.113.9", "comfy.example.com")
        async with session.get(f"{local}/queue") as response:
            assert (await response.json())["client"] == "127.0.0.1"


@needs("nginx")
async def test_paths_come_through_as_they_were_sent(tmp_path: Path) -> None:
    """SECURITY: the gate judges what is forwarded, so nothing before it may read a path in a way of its own."""
    line = "/api/view/..%2f%2e%2e//a?filename=%2e%2e%2fb&x=%00"
    async with named_server("gate-1") as gate, balanced(tmp_path, [gate, gate]) as (base, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
        writer.write(f"GET {line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert f'"path": "{line}"'.encode() in answer


@needs("nginx")
@pytest.mark.parametrize("is_first_there", [True, False])
async def test_a_gate_answers_through_it(tmp_path: Path, comfy: StandIn, is_first_there: bool) -> None:
    """Requests and WebSockets, also where the other gate does not run."""
    async with running_gate(tmp_path, comfy.url) as gate:
        there, absent = gate.url.removeprefix("http://"), f"127.0.0.1:{free_port()}"
        gates = [there, absent] if is_first_there else [absent, there]
        async with balanced(tmp_path, gates) as (tunnel, _), aiohttp.ClientSession() as session:
            headers = {"X-API-Key": gate.keys["alice"]}
            for client in CLIENTS[:8]:
                async with session.get(f"{tunnel}/queue", headers=headers | {"CF-Connecting-IP": client}) as response:
                    assert response.status == 200
                async with session.ws_connect(
                    f"{tunnel}/ws?clientId=tab", headers=headers | {"CF-Connecting-IP": client}
                ) as ws:
                    assert (await ws.receive_json())["type"] == "status"

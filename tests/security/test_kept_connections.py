"""What the gate works out of a request's header fields is shared by the next request of its connection that has the same ones, byte for byte.

A proxy in front keeps its connections, and sends requests of many clients over one. None gets what was worked out for another: not for other fields,
nor another target, nor under another configuration.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from yarl import URL

from proxy.auth import key_file
from tests.harness import Running
from tests.proxy.test_reload import change, key_id, session_of
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import RawAnswer, connect, parse_answer

NOTE = "/userdata/note.json"


class Kept:
    """One connection, asked again and again. A request is made of the lines alone, so the same lines are the same bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, target: str, *lines: str, method: str = "GET", body: bytes = b"") -> RawAnswer:
        head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", "Host: gate.example", *lines))
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        self._writer.write(f"{head}\r\n".encode() + body)
        answer = parse_answer(await self._reader.readuntil(b"\r\n\r\n"))
        if lengths := answer.all("Content-Length"):
            answer.body = await self._reader.readexactly(int(lengths[0]))
        else:
            assert answer.status == 204, "has no body"
        return answer


@asynccontextmanager
async def kept(gate: Running) -> AsyncIterator[Kept]:
    async with asyncio.timeout(GUARD_S):
        reader, writer = await connect(gate.url)
        try:
            yield Kept(reader, writer)
        finally:
            writer.transport.abort()


def bearer(gate: Running, who: str) -> str:
    return f"Authorization: Bearer {gate.keys[who]}"


async def write_notes(connection: Kept, gate: Running) -> None:
    for who in ("alice", "mallory"):
        written = await connection.ask(NOTE, bearer(gate, who), method="POST", body=orjson.dumps(f"{who}'s"))
        assert written.status == 200


async def reload(gate: Running) -> None:
    assert await gate.gate.reload(gate.config_file)


async def test_each_gets_its_own_whatever_came_before_on_the_connection(gate: Running) -> None:
    async with kept(gate) as connection:
        await write_notes(connection, gate)
        for who in ("alice", "alice", "mallory", "alice", "mallory", "mallory"):
            answer = await connection.ask(NOTE, bearer(gate, who))
            assert (answer.status, answer.body) == (200, orjson.dumps(f"{who}'s"))
        assert (await connection.ask(NOTE)).status == 401
        assert (await connection.ask(NOTE, bearer(gate, "alice"), bearer(gate, "mallory"))).status == 401
        assert (await connection.ask(NOTE, bearer(gate, "alice"))).body == b'"alice\'s"'


async def test_another_target_is_judged_anew(gate: Running) -> None:
    key = gate.keys["alice"]
    async with kept(gate) as connection:
        for _ in range(2):
            assert (await connection.ask("/users", bearer(gate, "alice"))).status == 200
            assert (await connection.ask("/users?token=cg_00000000_no", bearer(gate, "alice"))).status == 401
            assert (await connection.ask(f"/users?token={gate.keys['mallory']}", bearer(gate, "alice"))).status == 401
            for target in (f"/users?a={key}", f"/userdata/{key}", f"/userdata/{key}?token={key}"):
                answer = await connection.ask(target, bearer(gate, "alice"))
                assert (answer.status, orjson.loads(answer.body)["error"]["type"]) == (400, "credential_misplaced"), (
                    target
                )


async def test_another_method_of_a_foreign_page_is_refused(gate: Running) -> None:
    cookie = (await session_of(gate, gate.keys["alice"]))["Cookie"]
    lines = (f"Cookie: {cookie}", "Origin: https://elsewhere.example")
    async with kept(gate) as connection:
        for _ in range(2):
            assert (await connection.ask("/users", *lines)).status == 200
            assert (await connection.ask(NOTE, *lines, method="DELETE")).status == 403


async def test_a_key_that_is_revoked_is_known_no_more(gate: Running) -> None:
    async with kept(gate) as connection:
        for _ in range(2):
            assert (await connection.ask("/users", bearer(gate, "alice"))).status == 200
        key_file.revoke_key(gate.config_file, key_id(gate.keys["alice"]))
        await reload(gate)
        assert (await connection.ask("/users", bearer(gate, "alice"))).status == 401
        assert (await connection.ask("/users", bearer(gate, "mallory"))).status == 200


async def test_a_key_that_is_another_tenants_now_reads_that_ones(gate: Running) -> None:
    async with kept(gate) as connection:
        await write_notes(connection, gate)
        assert (await connection.ask(NOTE, bearer(gate, "alice"))).body == b'"alice\'s"'
        first = f'id = "{key_id(gate.keys["alice"])}"'
        head, mark, tail = gate.config_file.read_text(encoding="utf-8").partition(first)
        assert mark
        gate.config_file.write_text(
            head + mark + tail.replace('tenant = "alice"', 'tenant = "mallory"', 1), encoding="utf-8"
        )
        await reload(gate)
        assert (await connection.ask(NOTE, bearer(gate, "alice"))).body == b'"mallory\'s"'


async def test_a_cookie_of_another_name_is_no_credential(gate: Running) -> None:
    """By https the cookie has another name, which only the gate's own host can set."""
    cookie = (await session_of(gate, gate.keys["alice"]))["Cookie"]
    async with kept(gate) as connection:
        assert (await connection.ask("/users", f"Cookie: {cookie}")).status == 200
        change(gate.config_file, "[server]\n", '[server]\npublic_url = "https://gate.example"\n')
        await reload(gate)
        assert (await connection.ask("/users", f"Cookie: {cookie}")).status == 401


async def test_a_session_that_is_ended_elsewhere_is_known_no_more(gate: Running) -> None:
    headers = await session_of(gate, gate.keys["alice"])
    async with kept(gate) as connection:
        for _ in range(2):
            assert (await connection.ask("/users", f"Cookie: {headers['Cookie']}")).status == 200
        logout = gate.session.post(
            gate.address("/gate/logout"), headers={**headers, "Origin": gate.url}, allow_redirects=False
        )
        async with logout as ended:
            assert ended.status == 200
        assert (await connection.ask("/users", f"Cookie: {headers['Cookie']}")).status == 401


async def test_a_page_that_is_welcome_no_more_may_not_read(gate: Running) -> None:
    welcome = 'cors_origins = ["https://app.example"]\n'
    lines = (bearer(gate, "alice"), "Origin: https://app.example")
    async with kept(gate) as connection:
        for is_welcome in (False, True, False):
            old, new = ("[server]\n", f"[server]\n{welcome}") if is_welcome else (welcome, "")
            if is_welcome or welcome in gate.config_file.read_text(encoding="utf-8"):
                change(gate.config_file, old, new)
                await reload(gate)
            allowed = (await connection.ask("/users", *lines)).all("Access-Control-Allow-Origin")
            assert allowed == (["https://app.example"] if is_welcome else [])


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_the_log_names_each_client_by_its_own_address(gate: Running, is_trusted: bool) -> None:
    """Of the proxy that the configuration trusts; the same fields say something else when it does no longer."""
    addresses = ["203.0.113.7", "203.0.113.7", "203.0.113.8"]
    async with kept(gate) as connection:
        await connection.ask("/users", bearer(gate, "alice"), f"CF-Connecting-IP: {addresses[0]}")
        if not is_trusted:
            change(gate.config_file, "[server]\n", "[server]\ntrusted_proxies = []\n")
            await reload(gate)
        for address in addresses:
            await connection.ask("/users", bearer(gate, "alice"), f"CF-Connecting-IP: {address}")
    await gate.gate.stop()
    lines = [orjson.loads(line) for line in gate.log.getvalue().splitlines()]
    told = [line["client"] for line in lines if line.get("route") == "GET /users"]
    assert told == [addresses[0], *(addresses if is_trusted else ["127.0.0.1"] * 3)]


MANY = "".join(f"x-{number:03}: {'y' * 16}\r\n" for number in range(120))
AT_ONCE = 100


@pytest.mark.parametrize("who", [None, "alice"])
async def test_an_idle_connection_keeps_little_of_what_came(gate: Running, who: str | None) -> None:
    """Thousands may be idle, each after a head that has as many fields as one may have."""
    credential = "" if who is None else f"{bearer(gate, who)}\r\n"
    head = f"GET /users HTTP/1.1\r\nHost: gate.example\r\n{credential}{MANY}\r\n".encode()
    url, loop = URL(gate.url), asyncio.get_running_loop()
    sockets: list[socket.socket] = []

    async def ask_from_another() -> None:
        sockets.append(socket.create_connection((str(url.host), url.port or 0)))
        sockets[-1].setblocking(False)
        await loop.sock_sendall(sockets[-1], head)
        assert (await loop.sock_recv(sockets[-1], 64 * 1024)).startswith(b"HTTP/1.1 200" if who else b"HTTP/1.1 401")

    async with asyncio.timeout(GUARD_S):
        for _ in range(10):
            await ask_from_another()
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(AT_ONCE):
                await ask_from_another()
            gc.collect()
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            for each in sockets:
                each.close()
    assert kept_bytes / AT_ONCE < 12 * 1024

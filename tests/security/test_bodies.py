"""Bodies that the gate holds: bounded in bytes, in parts and in time, so that nobody waits for another's."""

from __future__ import annotations

import asyncio
import io
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from proxy.http.body_memory import MAX_TENANT_BYTES
from tests.harness import Running, new_key
from tests.matrix.world import World, open_world
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import connect

IDS = b'{"delete": [' + b",".join([b'"x"'] * 10_001) + b"]}"
SIZE = 8 * 1024**2


@pytest.fixture
async def gate(world: World) -> Running:
    return world.running


def head(path: str, key: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_bodies_that_never_end_hold_so_much_and_no_more(gate: Running) -> None:
    async with asyncio.timeout(GUARD_S):
        room = gate.gate.dependencies.bodies
        slow = []
        for _ in range(2 * MAX_TENANT_BYTES // SIZE):
            _, writer = await connect(gate.url)
            writer.write(head("/prompt", gate.keys["mallory"], SIZE) + b" " * 1000)
            slow.append(writer)
        while room.held_bytes < MAX_TENANT_BYTES:
            await asyncio.sleep(0)
        body = {"prompt": {"1": {"class_type": "EmptyImage", "inputs": {}}}}
        assert await gate.status("POST", "/prompt", "alice", json=body) in (200, 400)
        assert room.held_bytes == MAX_TENANT_BYTES
        for writer in slow:
            writer.transport.abort()
        while room.held_bytes:
            await asyncio.sleep(0)


async def test_tenants_that_hold_all_that_they_may_leave_room_for_one_more(tmp_path: Path) -> None:
    others = [f"other{number}" for number in range(4)]
    keys = {other: new_key(other) for other in others}
    more = "".join(f"\n[tenants.{other}]\n{table}" for other, (_, table) in keys.items())
    async with (
        open_world(tmp_path, more=more) as world,
        asyncio.timeout(GUARD_S),
        AsyncExitStack() as held,
    ):
        gate = world.running
        room = gate.gate.dependencies.bodies
        for other in others:
            for _ in range(MAX_TENANT_BYTES // SIZE):
                _, writer = await connect(gate.url)
                held.callback(_abort, writer)
                writer.write(head("/prompt", keys[other][0], SIZE) + b" " * 1000)
        while room.held_bytes < 3 * MAX_TENANT_BYTES:
            await asyncio.sleep(0)
        for text in ("x" * (SIZE - 1000), "x"):
            body = orjson.dumps({"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"text": text}}}})
            assert await gate.status("POST", "/prompt", "alice", data=io.BytesIO(body)) in (200, 400)


@pytest.mark.parametrize("path", ["/queue", "/history", "/api/jobs/cancel", "/settings"])
async def test_a_list_of_ids_has_its_own_bounds(gate: Running, path: str) -> None:
    assert await gate.status("POST", path, "alice", data=IDS) == 400
    async with gate.call("POST", path, "alice", data=io.BytesIO(b" " * (1024**2 + 1))) as response:
        assert response.status == 413
        assert "on this route" in orjson.loads(await response.read())["error"]["details"]
    assert await gate.status("POST", "/interrupt", "alice", data=IDS) == 200, "what is no document means nothing there"

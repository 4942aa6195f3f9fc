"""What breaks on the way: the gate, ComfyUI, a socket. The owner finds its job again, and the neighbour still finds nothing."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from policy.principal import TenantId
from proxy.app import Gate
from proxy.config import load_config
from proxy.observability.access_log import RequestLog
from tests.contract.driver import Socket, images_of, node, previewing, saving, slow
from tests.matrix.people import NUMBERS, Listener, Tenant, told, unique
from tests.matrix.world import World
from tests.proxy.upstreams import GUARD_S


@asynccontextmanager
async def restarted_gate(world: World) -> AsyncIterator[Gate]:
    """Stops the gate and starts another one from the same file, at another port; clients go there."""
    await world.running.gate.stop()
    gate = Gate(load_config(world.running.config_file, {}), RequestLog(io.BytesIO(), "json"))
    await gate.start()
    await gate.dependencies.queue_watchers.first.is_settled.wait()
    for person in (world.alice, world.mallory, world.admin, world.nobody):
        person.url = gate.public.url
    try:
        yield gate
    finally:
        await gate.stop()


async def has_nothing(tenant: Tenant, prompt_ids: list[str]) -> None:
    queue = (await tenant.get("/queue")).json()
    assert queue == {"queue_running": [], "queue_pending": []}
    await has_nothing_of(tenant, prompt_ids)


async def has_nothing_of(tenant: Tenant, prompt_ids: list[str]) -> None:
    listed = (await tenant.get("/history")).json()
    for prompt_id in prompt_ids:
        assert prompt_id not in listed
        assert (await tenant.get(f"/history/{prompt_id}")).json() == {}


async def test_the_gate_restarts_in_the_middle_of_a_job(world: World) -> None:
    """One job ended, one runs, one waits and will make pictures."""
    alice, mallory, sid = world.alice, world.mallory, unique("sid")
    ear = await alice.connect(sid)
    ended = await alice.queue(saving("before", NUMBERS["alice"]), client_id=sid)
    shown = await alice.queue(previewing(NUMBERS["alice"]), client_id=sid)
    await ear.ended([ended, shown])
    running = await alice.queue(slow(60.0, 6000), client_id=sid)
    await ear.event("progress", running)
    waiting = await alice.queue(saving("after", NUMBERS["alice"]), client_id=sid)
    jobs = [ended, running, waiting]
    mallory.secrets |= {each.encode() for each in jobs}
    temp = images_of(await alice.history(shown))[0]
    async with restarted_gate(world):
        closed = await until_closed(ear)
        assert closed in (1001, 1006)
        queue = (await alice.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [waiting]
        assert ended in (await alice.get("/history")).json()
        assert (await alice.get("/prompt")).json() == {"exec_info": {"queue_remaining": 2}}
        await has_nothing(mallory, jobs)
        again, spy = await alice.connect(sid), await mallory.connect(sid)
        await again.event("progress", running)
        assert (await mallory.post("/interrupt", json={"prompt_id": running})).status == 200
        await mallory.post("/queue", json={"clear": True})
        await again.event("progress", running)
        await alice.post("/interrupt", json={})
        await again.ended([running, waiting])
        entry = await alice.history(waiting)
        assert entry["status"]["completed"]
        for item in (*images_of(entry), temp, *images_of(await alice.history(ended))):
            assert (await alice.file(item)).status == 200
            assert (await mallory.file(item)).status == 404
        assert list((await alice.get("/history")).json())[-2:] == [running, waiting]
        await has_nothing(mallory, jobs)
        assert await spy.is_silent()
        assert not [message for message in spy.seen if "prompt_id" in message["data"]]


async def until_closed(socket: Socket) -> int | None:
    closing = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR)
    while (await socket.connection.receive(timeout=240)).type not in closing:
        pass
    return socket.connection.close_code


async def test_comfyui_restarts_in_the_middle_of_a_job(standing: World) -> None:
    """What ran is tried once more, what waited runs, history stays; temp files are gone for both."""
    queue_watcher = standing.running.gate.dependencies.queue_watchers.first
    listeners = {who.who: await who.connect(unique("sid")) for who in (standing.alice, standing.mallory)}
    shown = await standing.alice.run(previewing(NUMBERS["alice"]))
    temp = images_of(shown)[0]
    running = await standing.alice.queue(slow(1.0, 10), client_id=listeners["alice"].sid)
    await listeners["alice"].event("progress", running)
    waiting = await standing.mallory.queue(previewing(NUMBERS["mallory"]), client_id=listeners["mallory"].sid)
    registry = standing.running.gate.dependencies.registry
    connections = registry.connections.to(queue_watcher.name)
    standing.standin.restart_state()
    for listener in listeners.values():
        assert await until_closed(listener) == 1012
    async with asyncio.timeout(GUARD_S):
        while registry.connections.to(queue_watcher.name) == connections:
            await asyncio.sleep(0.01)
        await queue_watcher.is_settled.wait()
    ended = shown["prompt"][1]
    for tenant, own, foreign in ((standing.alice, running, waiting), (standing.mallory, waiting, running)):
        assert (await tenant.file(temp)).status == 404
        while own not in (history := (await tenant.get("/history")).json()):
            await asyncio.sleep(0)
        assert history[own]["status"]["completed"]
        assert foreign not in history
        assert (ended in history) == (tenant is standing.alice)
        await has_nothing_of(tenant, [foreign])
        assert (await tenant.get("/prompt")).json() == {"exec_info": {"queue_remaining": 0}}
        entry = await tenant.run(saving("anew", NUMBERS[tenant.who]))
        assert (await tenant.file(images_of(entry)[0])).status == 200
    assert not registry.of(TenantId("alice")).has_temp_file(temp["filename"])


async def test_a_dropped_socket_gets_what_it_missed(world: World) -> None:
    """A tunnel breaks the connection; the job goes on and ends; the client comes back with the same id."""
    alice, sid = world.alice, unique("sid")
    first = await alice.connect(sid)
    running = await alice.queue(slow(60.0, 6000), client_id=sid)
    await first.event("progress", running)
    drop(first)
    assert (await alice.post("/interrupt", json={"prompt_id": running})).status == 200
    while not (await alice.get(f"/history/{running}")).json():
        pass
    spy = await world.mallory.connect(sid)
    again = await alice.connect(sid)
    await again.end_of(running)
    kinds = again.types(running)
    assert kinds[0] == "execution_start"
    assert "execution_interrupted" in kinds
    assert kinds.count("progress") == 1, "of many states the newest"
    prompt_id = await alice.queue(previewing(NUMBERS["alice"]), client_id=sid)
    await again.end_of(prompt_id)
    assert "executed" in again.types(prompt_id)
    assert await spy.is_silent()
    assert len(spy.seen) == 1, "the status it was greeted with"
    for socket in (again, spy):
        await socket.close()


def drop(socket: Socket) -> None:
    """Ends the connection without a word."""
    transport = socket.connection._conn.transport if socket.connection._conn else None
    assert transport is not None
    transport.abort()


async def test_a_second_socket_takes_over_and_outlives_the_first(world: World) -> None:
    """ComfyUI itself leaves the newer socket deaf when the older one closes."""
    alice, sid = world.alice, unique("sid")
    first = await alice.connect(sid)
    second = await alice.connect(sid)
    prompt_id = await alice.queue(previewing(NUMBERS["alice"]), client_id=sid)
    await second.end_of(prompt_id)
    await first.close()
    other = await alice.queue(previewing(NUMBERS["alice"] + 1), client_id=sid)
    await second.end_of(other)
    assert not first.types(prompt_id)
    assert "executed" in second.types(other)
    await second.close()


def noise(side: int = 700) -> bytes:
    buffer = io.BytesIO()
    picture = Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


async def deaf_client(world: World, sid: str) -> asyncio.StreamWriter:
    """Upgrades and never reads again."""
    url = URL(world.alice.url)
    assert url.host is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws?clientId={sid} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Authorization: Bearer {world.running.keys['alice']}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    assert isinstance(writer.transport, asyncio.ReadTransport)
    writer.transport.pause_reading()
    return writer


async def test_a_client_that_never_reads_delays_nobody(world: World) -> None:
    """Its pictures are more than all buffers hold; ComfyUI sends to each socket in turn, and waits for none of the gate's."""
    await world.alice.needs("SaveImageWebsocket")
    sid, spy_sid = unique("deaf"), unique("sid")
    await world.alice.put("noise.png", noise(), overwrite="true")
    writer = await deaf_client(world, sid)
    ear = await world.mallory.connect(spy_sid)
    graph = {"1": node("LoadImage", image="noise.png"), "2": node("SaveImageWebsocket", images=["1", 0])}
    for _ in range(12):
        await world.alice.queue(graph, client_id=sid)
    prompt_id = await world.mallory.queue(previewing(NUMBERS["mallory"]), client_id=spy_sid)
    await ear.end_of(prompt_id)
    last = await world.alice.queue(previewing(NUMBERS["alice"]), client_id=sid)
    while not (await world.alice.get(f"/history/{last}")).json():
        pass
    after = await world.mallory.queue(previewing(NUMBERS["mallory"] + 1), client_id=spy_sid)
    await ear.end_of(after)
    if world.comfy is not None:
        assert world.comfy.unpublished == 0, "all of its events left ComfyUI"
    writer.transport.abort()
    await ear.close()


@pytest.mark.parametrize("who", ["alice", "mallory"])
async def test_a_revoked_key_loses_its_socket(standing: World, who: str) -> None:
    from proxy.auth import key_file

    running = standing.running
    tenant = standing.alice if who == "alice" else standing.mallory
    listener: Listener = await tenant.connect(unique("sid"))
    other = standing.mallory if who == "alice" else standing.alice
    stays = await other.connect(unique("sid"))
    key_id = running.keys[who].split("_")[1]
    key_file.revoke_key(running.config_file, key_id)
    assert await running.gate.reload(running.config_file)
    assert await until_closed(listener) == 4401
    assert (await tenant.get("/queue")).status == 401, told(await tenant.get("/queue"))
    assert await stays.is_silent()
    await stays.close()

"""Several calls together, each of them lawful: where a name, an id or a count outlives its job, an answer costs somebody else, or a wait has no end.

On the stand-in and, where COMFYUI_URL is set, on a real ComfyUI. Single calls are tried in tests/matrix, names that come back in test_reuse.py there.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from policy.call import UpstreamCall
from policy.principal import TenantId
from tests.contract.driver import Graph, images_of, loading, node, png, previewing, saving, slow, unique
from tests.matrix.people import NUMBERS, Tenant, told
from tests.matrix.world import REAL_BASE, World, open_world
from tests.proxy.commands.test_connect_proxy import forwarding
from tests.proxy.upstreams import GUARD_S
from tests.wire.raw import connect, request, send

MALLORY = TenantId("mallory")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LARGE = (6000, 6000)
FILE_BYTES = 24 * 1024**2


async def test_a_neighbour_waits_for_few_of_many_previews(world: World) -> None:
    """A picture of many pixels and few bytes: each preview of it takes ComfyUI's event loop for as long as it is made."""
    await world.mallory.put("large.png", png(size=LARGE))
    await world.alice.get("/history")
    path = "/view?filename=large.png&type=input&preview=webp;90"
    asked = [asyncio.ensure_future(world.running.status("GET", path, "mallory")) for _ in range(8)]
    pictures = world.running.gate.dependencies.pictures
    while not pictures._is_taken:
        await asyncio.sleep(0)
    for _ in range(3):
        await world.alice.get("/history")
        await world.alice.queue(saving(unique("beside"), NUMBERS["alice"]))
    assert sum(each.done() for each in asked) <= 2
    for each in asked:
        each.cancel()
    assert set(await asyncio.gather(*asked, return_exceptions=True)) != {200}


async def test_heavy_jobs_that_wait_cost_their_neighbour_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of everybody's workflows, which grows with what a neighbour has submitted, is not read for a tenant."""
    upstream = world.running.gate.dependencies.upstream
    ask, read = upstream.ask, list[tuple[str, int]]()

    async def noting(call: UpstreamCall, **more: Any) -> Any:
        reply = await ask(call, **more)
        read.append((call.target, len(reply.body or b"")))
        return reply

    pnginfo = {"workflow": {"nodes": [[number] for number in range(20_000)]}}
    running = await world.mallory.queue(slow(), extra_data={"extra_pnginfo": pnginfo})
    while not (await world.mallory.get("/queue")).json()["queue_running"]:
        await asyncio.sleep(0.02)
    waiting = [await world.mallory.queue(slow(), extra_data={"extra_pnginfo": pnginfo}) for _ in range(4)]
    monkeypatch.setattr(upstream, "ask", noting)
    assert (await world.alice.get("/queue")).json() == {"queue_running": [], "queue_pending": []}
    assert (await world.alice.post("/interrupt")).status == 200
    assert (await world.alice.get("/api/jobs")).json()["jobs"] == []
    assert max((size for _, size in read), default=0) < 10_000, read
    monkeypatch.undo()
    queue = (await world.mallory.get("/queue")).json()
    assert [item[1] for part in ("queue_running", "queue_pending") for item in queue[part]] == [running, *waiting]


async def test_readers_that_read_nothing_leave_room(tmp_path: Path, target: str) -> None:
    server = 'max_connections = 12\nbody_timeout = "3s"'
    async with open_world(tmp_path, real_url=target, server=server) as world, asyncio.timeout(2 * GUARD_S):
        gate = world.running
        await world.mallory.put("long.png", b"\x89PNG\r\n\x1a\n" + bytes(FILE_BYTES), overwrite="true")
        silent = []
        for _ in range(12):
            _, writer = await connect(gate.url)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request("/view?filename=long.png&type=input", gate.keys["mallory"]))
            silent.append(writer)

        def cut_off() -> int:
            return sum(b"/view" in line for line in gate.log.getvalue().splitlines())

        while gate.gate.dependencies.under_way.running(MALLORY) + cut_off() < 12:
            await asyncio.sleep(0.01)
        async with gate.session.get(gate.url + "/gate/health") as health:
            assert health.status == 200
        while await gate.status("GET", "/users", "alice") != 200:
            await asyncio.sleep(0.05)
        for writer in silent:
            writer.transport.abort()


async def test_previews_of_one_job_count_as_stored(
    tmp_path: Path, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen previews of noise, which no format makes small, and nothing in the output folder."""
    monkeypatch.setattr("proxy.files.comfyui_folders._USAGE_FRESH_S", -1.0)
    async with open_world(tmp_path, real_url=visible, upstream_more=directory(tmp_path, visible)) as world:
        remaining_bytes = 2 * 1024**2
        storage = world.running.gate.dependencies.storage
        assert storage.disk is not None
        used_bytes = await storage._used_bytes(storage.disk, MALLORY, is_fresh=True)
        await set_storage(world, used_bytes + remaining_bytes)
        await world.mallory.put(name := f"{unique('noise')}.png", noise())
        graph: Graph = {"1": node("LoadImage", image=name)}
        for number in range(16):  # each of another size, else ComfyUI makes one of all
            scaled = node(
                "ImageScale",
                image=["1", 0],
                upscale_method="nearest-exact",
                width=256,
                height=240 + number,
                crop="disabled",
            )
            graph |= {f"scaled{number}": scaled, f"shown{number}": node("PreviewImage", images=[f"scaled{number}", 0])}
        entry = await world.mallory.run(graph)
        assert len(entry["outputs"]) == 16
        answer = await world.mallory.submit(saving("more", NUMBERS["mallory"]))
        assert answer.status == 507, told(answer)
        assert (await world.alice.submit(saving("own", NUMBERS["alice"]))).status == 200


async def test_the_key_of_a_forwarder_goes_to_its_gate_alone(world: World) -> None:
    """What would lead the address elsewhere is refused by the forwarder itself: the gate, and ComfyUI behind it, hear nothing of it."""
    stranger = list[bytes]()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger.append(await reader.read(1))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        other = "{}:{}".format(*server.sockets[0].getsockname())
        async with forwarding(world.running.url, world.running.keys["alice"]) as here:
            host = here.removeprefix("http://")
            heard = world.running.log.tell()
            for target in (f"@{other}/queue", f".{other}/queue", f"http://@{other}/queue", "*"):
                answer = await send(
                    here, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
                )
                assert answer.status in (400, 403), answer.raw
            assert world.running.log.tell() == heard
            answer = await send(here, f"GET /queue HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert (answer.status, answer.body) == (200, b'{"queue_running":[],"queue_pending":[]}')
    assert stranger == []


async def test_long_jobs_of_a_neighbour_refuse_no_short_ones(tmp_path: Path, target: str) -> None:
    """What a job is expected to cost is learned from one's own."""
    async with (
        open_world(tmp_path, real_url=target, more='gpu_seconds = "20/hour"') as world,
        asyncio.timeout(2 * GUARD_S),
    ):
        for tenant, graph in ((world.alice, saving(unique("first"), 1)), *[(world.mallory, slow(4.0, 4))] * 2):
            await tenant.run(graph)
            while world.running.gate.dependencies.registry.active():  # what it took is counted
                await asyncio.sleep(0.01)
        async with world.direct.blocked():  # so that all of them wait, and none has told what it took
            for number in range(6):
                graph = saving(unique("short"), number) | {f"extra{each}": node("EmptyImage") for each in range(number)}
                answer = await world.alice.submit(graph)
                assert answer.status == 200, told(answer)
            await world.alice.post("/queue", json={"clear": True})


async def test_the_id_of_a_neighbours_job_is_asked_for_like_a_free_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = world.running.gate.dependencies.upstream
    ask, asked = upstream.ask, list[str]()

    async def noting(call: UpstreamCall, **more: Any) -> Any:
        asked.append(f"{call.method} {call.target}")
        return await ask(call, **more)

    taken, free = str(uuid.uuid4()), str(uuid.uuid4())
    await world.alice.run(saving(unique("hers"), NUMBERS["alice"]), prompt_id=taken)
    monkeypatch.setattr(upstream, "ask", noting)
    seen = dict[str, set[str]]()
    for wish in (taken, free):
        asked.clear()
        world.mallory.own_words.add(wish.encode())
        answer = await world.mallory.submit(saving(unique("wished"), NUMBERS["mallory"]), prompt_id=wish)
        assert answer.status == 200, told(answer)
        assert (answer.json()["prompt_id"] == wish) == (wish == free)
        seen[wish] = {_UUID.sub("absent", call) for call in asked[: asked.index("POST /prompt")]}
    assert seen[taken] == seen[free]
    assert "GET /history/absent" in seen[free]
    assert (await world.mallory.get(f"/history/{taken}")).json() == {}


async def test_a_preview_whose_job_was_pushed_out_is_nobodys(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tenant's ended jobs so many are kept; when one is pushed out, nobody comes to its pictures or its id."""
    monkeypatch.setattr("proxy.jobs.housekeeping.RETAIN_EACH_S", 0.01)
    async with open_world(tmp_path, real_url=target, more="\n[jobs]\nhistory_jobs = 3\n") as world:
        alice, mallory = world.alice, world.mallory
        entry = await alice.run(previewing(NUMBERS["alice"]))
        prompt_id, (picture,) = entry["prompt"][1], images_of(entry)
        assert (await alice.file(picture)).status == 200
        kept = (await mallory.run(saving(unique("kept"), NUMBERS["mallory"])))["prompt"][1]
        for number in range(3):
            await alice.run(saving(unique("push"), number))
        async with asyncio.timeout(GUARD_S):
            while (await alice.get(f"/history/{prompt_id}")).json() != {}:
                await asyncio.sleep(0.01)
        assert prompt_id not in (await alice.get("/history")).json()
        assert kept in (await mallory.get("/history")).json(), "a neighbour's jobs push out nobody's"
        mallory.own_words.add(prompt_id.encode())
        answer = await mallory.submit(previewing(NUMBERS["mallory"]), prompt_id=prompt_id)
        assert (answer.status, answer.json()["prompt_id"] == prompt_id) == (200, False)
        for tenant in (alice, mallory):
            await is_nobodys(tenant, picture)


async def is_nobodys(tenant: Tenant, picture: dict[str, str]) -> None:
    tenant.own_words.add(picture["filename"].encode())
    assert (await tenant.file(picture)).status == 404
    assert (await tenant.submit(loading(f"{picture['filename']} [temp]"))).status != 200


def directory(folder: Path, target: str) -> str:
    return f'directory = "{REAL_BASE if target else folder / "comfyui"}"'


async def set_storage(world: World, size_bytes: int) -> None:
    """mallory's alone: a real ComfyUI keeps files of both from earlier tests."""
    file = world.running.config_file
    text = file.read_text(encoding="utf-8").replace("[tenants.mallory]\n", '[tenants.mallory]\nlimits = "small"\n')
    text += f"\n[limits.small]\nstorage = {size_bytes}\n"
    file.write_text(text, encoding="utf-8")
    assert await world.running.gate.reload(file)


def noise(side: int = 256) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3)).save(buffer, "PNG")
    return buffer.getvalue()

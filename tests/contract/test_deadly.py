"""Section 0: requests that ComfyUI does not survive. They go to the stand-in only."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from proxy.standin import StandIn

from .driver import Comfy, Graph, empty_image, node, previewing, slow


async def _death(socket: Any) -> None:
    """Waits for the end of the connection, which is what a client sees of it."""
    closed = (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE)
    while (await socket.connection.receive(timeout=30)).type not in closed:
        pass


async def _until_worker_is_dead(standin: StandIn) -> None:
    async with asyncio.timeout(30):
        while standin.worker_alive:
            await asyncio.sleep(0)


@pytest.mark.parametrize("client_id", [[], {}, ["a"]])
@pytest.mark.parametrize("place", ["top", "extra"])
async def test_client_id_that_is_no_string_kills_the_process(
    local: Comfy, standin: StandIn, client_id: Any, place: str
) -> None:
    socket = await local.connect("watcher")
    fields = {"client_id": client_id} if place == "top" else {"extra_data": {"client_id": client_id}}
    assert (await local.submit(previewing(1), **fields)).status == 200
    await _death(socket)
    assert not standin.alive
    with pytest.raises(aiohttp.ClientError):
        await local.get("/prompt")


async def test_dead_process_comes_back_with_a_new_start(local: Comfy, standin: StandIn) -> None:
    socket = await local.connect("watcher")
    await local.submit(previewing(1), client_id=[])
    await _death(socket)
    await standin.stop()
    await standin.start(port=standin.port)
    assert standin.alive
    assert (await local.get("/history")).json() == {}
    assert (await local.run(previewing(2)))["status"]["completed"]


TWIN = "c8111192-b372-4439-943d-f62d358ef47c"


async def test_two_equal_items_kill_the_worker(local: Comfy, standin: StandIn) -> None:
    async with local.socket() as socket:
        running_id = await local.queue(slow(), client_id=socket.sid)
        await socket.event("progress", running_id)
        await local.queue(previewing(0), number=-5)
        for color in (1, 2):
            assert (await local.submit(previewing(color), number=5, prompt_id=TWIN)).status == 200
        await local.post("/interrupt", json={"prompt_id": running_id})
        await _until_worker_is_dead(standin)
    assert standin.alive
    assert (await local.submit(previewing(3))).status == 200
    assert (await local.get("/prompt")).json()["exec_info"]["queue_remaining"] >= 1


async def test_delete_among_equal_items_is_500_and_deletes(local: Comfy) -> None:
    async with local.blocked():
        first = await local.queue(previewing(0), number=-5)
        for color in (1, 2):
            assert (await local.submit(previewing(color), number=5, prompt_id=TWIN)).status == 200
        assert (await local.post("/queue", json={"delete": [first]})).status == 500
        pending = (await local.get("/queue")).json()["queue_pending"]
        assert [item[1] for item in pending] == [TWIN, TWIN]
        await local.post("/queue", json={"clear": True})


GRAPHS: dict[str, Graph] = {
    "unconnected node without inputs": previewing(1) | {"9": {"class_type": "EmptyImage"}},
    "undeclared link to nowhere": {
        "1": empty_image(zzz=["55", 0]),
        "2": node("PreviewImage", images=["1", 0]),
    },
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
async def test_graph_kills_the_worker_and_not_the_server(local: Comfy, standin: StandIn, graph: Graph) -> None:
    assert (await local.submit(graph)).status == 200
    await _until_worker_is_dead(standin)
    assert standin.alive
    assert (await local.submit(previewing(2))).status == 200
    queue = (await local.get("/queue")).json()
    assert (len(queue["queue_running"]), len(queue["queue_pending"])) == (1, 1)
    standin.restart_state()
    assert standin.worker_alive
    assert (await local.run(previewing(3)))["status"]["completed"]


@pytest.mark.parametrize("pnginfo", ["text", None, {"workflow": None}, {"workflow": []}])
async def test_odd_pnginfo_takes_the_job_list_from_everybody(local: Comfy, pnginfo: Any) -> None:
    await local.run(previewing(1))
    entry = await local.run(
        {"1": node("PrimitiveInt", value=1), "2": node("PreviewAny", source=["1", 0])},
        extra_data={"extra_pnginfo": pnginfo},
    )
    assert (await local.get("/api/jobs")).status == 500
    assert (await local.get("/history")).status == 200
    await local.post("/history", json={"delete": [entry["prompt"][1]]})
    assert (await local.get("/api/jobs")).status == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_number_that_is_not_finite_makes_json_that_is_none(local: Comfy, number: str) -> None:
    async with local.blocked():
        answer = await local.submit(previewing(1), number=number)
        for text in (answer.text(), (await local.get("/queue")).text(), (await local.get("/api/jobs")).text()):
            assert number in text
            with pytest.raises(ValueError, match="strict"):
                json.loads(text, parse_constant=_refuse)
        await local.post("/queue", json={"clear": True})


def _refuse(constant: str) -> None:
    raise ValueError(f"strict JSON has no {constant}")


@pytest.fixture
async def robust(tmp_path: Path, session: aiohttp.ClientSession) -> AsyncIterator[tuple[StandIn, Comfy]]:
    server = StandIn(tmp_path / "robust", frontend=False, fragile=False)
    await server.start()
    yield server, Comfy(server.url, session, (0, 33, 0), is_real=False)
    await server.stop()


async def test_robust_standin_survives(robust: tuple[StandIn, Comfy]) -> None:
    server, comfy = robust
    assert (await comfy.submit(previewing(1), client_id=[])).status == 200
    for graph in GRAPHS.values():
        assert (await comfy.submit(graph)).status == 200
    assert (await comfy.run(previewing(3)))["status"]["completed"]
    assert server.alive
    assert server.worker_alive


async def test_client_that_stops_reading_stalls_everybody(local: Comfy, standin: StandIn) -> None:
    """The publisher awaits each socket in turn; what one does not read, nobody gets."""
    reader, writer = await asyncio.open_connection(standin.host, standin.port)
    writer.write(
        b"GET /ws?clientId=deaf HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    # Noise does not compress, and a job without a client is shown to everybody: this fills the kernel's buffers.
    await local.put("noise.png", _noise())
    graph = {"1": node("LoadImage", image="noise.png"), "2": node("SaveImageWebsocket", images=["1", 0])}
    async with local.socket() as socket:
        for _ in range(12):
            await local.queue(graph)
        prompt_id = await local.queue(previewing(1), client_id=socket.sid)
        while not (await local.get(f"/history/{prompt_id}")).json():
            assert standin.worker_alive
        waiting = standin.unpublished
        assert waiting > 0
        await local.get("/queue")
        assert standin.unpublished >= waiting
        writer.transport.abort()
        await socket.end_of(prompt_id)


def _noise() -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (700, 700), random.Random(1).randbytes(700 * 700 * 3)).save(buffer, "PNG")
    return buffer.getvalue()

"""Live events of jobs at another ComfyUI than the first: to their client as from one ComfyUI alone, and to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.following import following
from tests.proxy.v2.following import slow as slow_of_api
from tests.proxy.v2.following import submit as submit_by_api
from tests.several.world import SECOND, SeveralWorld, several

MALLORYS: dict[str, str] = {"gpu-1": 'tenants = ["mallory"]'}
"""So alice's jobs go to the second one."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SeveralWorld]:
    async with several(tmp_path, settings=MALLORYS) as made:
        yield made


def graph(seconds: float = 0.0, steps: int = 2) -> dict[str, Any]:
    """SlowProgress sends a preview with each step."""
    image = {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 7}}
    slow = {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": steps}}
    saved = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "made"}}
    return {"1": image, "2": slow, "3": saved}


@asynccontextmanager
async def listening(
    gate: Running, who: str = "alice", client_id: str = "tab", flags: bool | None = None
) -> AsyncIterator[ClientWebSocketResponse]:
    """flags: what the client says of previews; None where it says nothing."""
    address = gate.address(f"/ws?clientId={client_id}")
    async with gate.session.ws_connect(address, headers=gate.headers(who), max_msg_size=0) as socket:
        if flags is not None:
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": flags}})
            await read_until(socket, "feature_flags")
        yield socket


async def submit(gate: Running, who: str = "alice", client_id: str | None = "tab", **more: Any) -> str:
    named = {} if client_id is None else {"client_id": client_id}
    return str((await gate.json("POST", "/prompt", who, json={"prompt": graph(**more)} | named))["prompt_id"])


Told = tuple[str, dict[str, Any]]


async def read_until(socket: ClientWebSocketResponse, kind: str, **data: Any) -> list[Told]:
    """Kind and data of each frame, up to the first of this kind with these values in its data. Binary ones: "binary", with number and metadata."""
    told: list[Told] = []
    async with asyncio.timeout(GUARD_S):
        while True:
            message = await socket.receive()
            assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
            told.append(_read(message.data))
            if told[-1][0] == kind and data.items() <= told[-1][1].items():
                return told


def _read(frame: str | bytes) -> Told:
    if isinstance(frame, str):
        event = json.loads(frame)
        return event["type"], event["data"]
    number, second = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:8], "big")
    metadata = orjson.loads(frame[8 : 8 + second]) if number == 4 else {"image_type": second}
    return "binary", {"number": number, **metadata}


def shape(told: list[Told], prompt_id: str) -> list[Any]:
    """What is the same of each run of one workflow. Counts of the queue come when they come."""
    return [
        (
            kind,
            sorted(data),
            data.get("prompt_id") in (None, prompt_id),
            [data.get(name) for name in _FIXED],
            _states(data),
        )
        for kind, data in told
        if kind not in ("status", "feature_flags")
    ]


_FIXED = ("node", "display_node", "node_id", "value", "max", "number", "image_type")


def _states(data: dict[str, Any]) -> Any:
    """Of nodes: a list in `execution_cached`, and how far each is in `progress_state`."""
    nodes = data.get("nodes")
    return {name: node["state"] for name, node in nodes.items()} if isinstance(nodes, dict) else nodes


async def one_run(gate: Running, flags: bool | None) -> list[Any]:
    async with listening(gate, flags=flags) as socket:
        prompt_id = await submit(gate)
        return shape(await read_until(socket, "executing", node=None, prompt_id=prompt_id), prompt_id)


@pytest.mark.parametrize("flags", [None, False, True])
async def test_they_are_those_of_one_comfyui_alone(tmp_path: Path, comfy: StandIn, flags: bool | None) -> None:
    async with running_gate(tmp_path, comfy.url) as gate:
        alone = await one_run(gate, flags)
    assert {"execution_start", "executed", "binary", "execution_success"} <= {kind for kind, *_ in alone}
    (tmp_path / "several").mkdir()
    async with several(tmp_path / "several", settings=MALLORYS) as world:
        assert await one_run(world.gate, flags) == alone
        assert "/prompt" in {call.raw_path for call in world.comfyuis[SECOND].received}


async def test_a_neighbour_hears_nothing_of_them(world: SeveralWorld) -> None:
    gate = world.gate
    async with (
        listening(gate) as alice,
        listening(gate, "mallory") as same,
        listening(gate, "mallory", "alice.tab") as up,
    ):
        prompt_id = await submit(gate)
        await read_until(alice, "executing", node=None)
        for client_id, socket in (("tab", same), ("alice.tab", up)):
            own = await submit(gate, "mallory", client_id)
            told = await read_until(socket, "executing", node=None)
            assert prompt_id not in str(told)
            assert {data["prompt_id"] for _, data in told if "prompt_id" in data} == {own}


async def test_all_sockets_of_the_tenant_hear_a_job_without_a_client_id(world: SeveralWorld) -> None:
    async with listening(world.gate) as one, listening(world.gate, client_id="other") as other:
        prompt_id = await submit(world.gate, client_id=None)
        for socket in (one, other):
            assert ("execution_start", prompt_id) in [
                (kind, data.get("prompt_id")) for kind, data in await read_until(socket, "executing", node=None)
            ]


async def test_who_follows_a_job_of_the_api_sees_how_far_it_is(world: SeveralWorld) -> None:
    job = await submit_by_api(world.gate, slow_of_api(0.5, 5))
    async with following(world.gate, job) as stream:
        await stream.until("progress", current_node="3")
        await stream.until("preview", node_id="3")
        await stream.rest()
    assert stream.seen[-1] == ("status", {"status": "succeeded"})


async def test_who_comes_back_gets_what_it_missed(world: SeveralWorld) -> None:
    async with listening(world.gate) as first:
        prompt_id = await submit(world.gate, seconds=GUARD_S, steps=300)
        await read_until(first, "progress")
    async with listening(world.gate) as again:
        told = await read_until(again, "progress", prompt_id=prompt_id)
        assert [kind for kind, _ in told].count("execution_start") == 1
        assert await world.gate.status("POST", "/interrupt", "alice") == 200
        await read_until(again, "execution_interrupted", prompt_id=prompt_id)


async def test_who_comes_after_the_end_is_told_how_it_was(world: SeveralWorld) -> None:
    prompt_id = await submit(world.gate)
    async with asyncio.timeout(GUARD_S):
        while not await world.gate.json("GET", f"/history/{prompt_id}", "alice"):
            pass
    async with listening(world.gate) as late:
        told = await read_until(late, "executing", node=None)
    assert [kind for kind, _ in told if kind != "status"].count("execution_success") == 1


async def test_its_socket_stays_while_the_comfyui_of_its_job_is_away(world: SeveralWorld) -> None:
    async with listening(world.gate) as socket:
        prompt_id = await submit(world.gate, seconds=GUARD_S, steps=300)
        await read_until(socket, "progress")
        await world.stop(SECOND)
        await world.start(SECOND)
        await read_until(socket, "execution_start", prompt_id=prompt_id)
        await read_until(socket, "progress", prompt_id=prompt_id)
        assert await world.gate.status("POST", "/interrupt", "alice") == 200
        await read_until(socket, "execution_interrupted", prompt_id=prompt_id)


async def test_its_socket_stays_while_the_first_comfyui_is_away(world: SeveralWorld) -> None:
    async with listening(world.gate) as socket:
        running = await submit(world.gate, seconds=0.5, steps=5)
        await read_until(socket, "execution_start")
        await world.stop("gpu-1")
        await read_until(socket, "execution_success", prompt_id=running)
        async with listening(world.gate, client_id="late") as late:
            prompt_id = await submit(world.gate, client_id="late")
            await read_until(late, "execution_success", prompt_id=prompt_id)
        await world.start("gpu-1")


async def test_a_client_that_does_not_read_delays_nobody(world: SeveralWorld) -> None:
    """What is on its way to it waits in the gate."""
    gate = world.gate
    async with listening(gate, client_id="deaf") as deaf, listening(gate) as socket:
        deaf._conn.transport.pause_reading()  # type: ignore[union-attr]
        await submit(gate, client_id="deaf", steps=1000)
        await submit(gate)
        await read_until(socket, "executing", node=None)
        assert world.comfyuis[SECOND].unpublished == 0


async def test_a_client_hears_at_its_gate_what_another_gate_gives(tmp_path: Path, postgres_url: str) -> None:
    more = f'[jobs]\ndatabase = "{postgres_url}"'
    (tmp_path / "other").mkdir()
    async with several(tmp_path, settings=MALLORYS, more=more) as world:
        written = world.gate.config_file.read_text(encoding="utf-8")
        same = written[written.index("[[comfyui]]") :]
        async with running_gate(tmp_path / "other", "", more=same) as other, listening(world.gate) as socket:
            for seconds in (0.0, 0.2):
                prompt_id = await submit(other, seconds=seconds)
                told = await read_until(socket, "executing", node=None, prompt_id=prompt_id)
                kinds = [kind for kind, data in told if data.get("prompt_id") == prompt_id]
                assert (kinds[0], kinds.count("executed"), kinds[-2]) == ("execution_start", 1, "execution_success")

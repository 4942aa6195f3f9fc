"""The gate restarts while custom nodes keep and wait: what was a tenant's own is its own still, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.conftest import REAL_URL, TARGETS
from tests.contract.driver import node, png, unique
from tests.matrix.people import RED
from tests.matrix.test_custom_routes import at_node, put, waiting
from tests.matrix.test_restarts import restarted_gate
from tests.matrix.world import World, open_world
from tests.pack.rows import ROWS
from tests.pack.standin import make_pack


@pytest.fixture(params=TARGETS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    real_url = REAL_URL if request.param == "real" else ""
    async with open_world(tmp_path, real_url=real_url, more=ROWS, pack=make_pack()) as opened:
        if (await opened.direct.get("/gate-pack/files/a.js")).status != 200:
            pytest.skip("this ComfyUI has not the pack: link tests/pack/comfyui into its custom_nodes")
        yield opened


async def test_results_that_an_id_names_are_their_tenants_after_a_restart(world: World) -> None:
    await put(world.alice, key := unique(), png(RED))
    entry = await world.alice.run({"1": node("GatePackLoad", id=key), "2": node("GatePackKeep", images=["1", 0])})
    made = entry["outputs"]["2"]["images"][0]["id"]
    async with restarted_gate(world):
        assert (await world.alice.get(f"/gate-pack/bytes/{made}")).status == 200
        assert (await world.alice.get(f"/gate-pack/bytes/{key}")).body == png(RED)
        assert (await world.mallory.get(f"/gate-pack/bytes/{made}")).status == 404


async def test_a_node_that_waits_is_answered_after_a_restart(world: World) -> None:
    async with world.alice.socket() as socket:
        prompt_id = await world.alice.queue(waiting("7"), client_id=socket.sid)
        await at_node(socket, prompt_id, "7")
        sid = socket.sid
    async with restarted_gate(world):
        body = {"node": "7", "answer": "a"}
        assert (await world.mallory.post("/gate-pack/answer", json=body)).status == 404
        again = await world.alice.connect(sid)
        await again.event("executing", node="7")
        assert (await world.mallory.post("/gate-pack/answer", json=body)).status == 404
        assert (await world.alice.post("/gate-pack/answer", json=body)).json() == {"heard": "a"}
        await again.end_of(prompt_id)
        await again.close()

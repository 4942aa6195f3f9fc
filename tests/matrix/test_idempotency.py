"""One key, two tenants: each has its own job, and neither learns that the other has used the key."""

from __future__ import annotations

from typing import Any

import orjson

from tests.contract.driver import Answer, Comfy, node, saving
from tests.matrix.people import NUMBERS, told, unique
from tests.matrix.world import World


async def submit(who: Comfy, graph: Any, key: str) -> Answer:
    return await who.post("/prompt", data=orjson.dumps({"prompt": graph}), headers={"Idempotency-Key": key})


async def test_a_neighbours_key_is_another_key(world: World) -> None:
    """Also with the very same document, and with another one, which would be refused as reuse."""
    key, prefix = unique("key"), unique("same")
    alices = await submit(world.alice, saving(prefix, NUMBERS["alice"]), key)
    assert alices.status == 200, told(alices)
    world.mallory.secrets.add(alices.json()["prompt_id"].encode())
    for graph in (saving(prefix, NUMBERS["alice"]), saving(prefix, NUMBERS["mallory"])):
        asked = key if graph["1"]["inputs"]["color"] == NUMBERS["alice"] else f"{key}-2"
        mallorys = await submit(world.mallory, graph, asked)
        assert mallorys.status == 200, told(mallorys)
        assert "Idempotency-Replayed" not in mallorys.headers
    assert (await submit(world.alice, saving(prefix, NUMBERS["alice"]), key)).body == alices.body
    other = await submit(world.alice, saving(prefix, 7), f"{key}-2")
    assert other.status == 200, "mallory's second key is alice's to use"


async def test_an_admin_of_the_same_tenant_has_other_keys(world: World) -> None:
    """SECURITY: an admin is answered as ComfyUI answers: nobody else gets that by repeating its key."""
    key, graph = unique("key"), saving(unique("roles"), NUMBERS["alice"])
    admins = await submit(world.admin, graph, key)
    assert admins.status == 200, told(admins)
    again = await submit(world.admin, graph, key)
    assert (again.body, again.headers["Idempotency-Replayed"]) == (admins.body, "true")
    world.alice.secrets.add(admins.json()["prompt_id"].encode())
    alices = await submit(world.alice, graph, key)
    assert alices.status == 200, told(alices)
    assert "Idempotency-Replayed" not in alices.headers


async def test_a_refusal_is_ones_own_too(world: World) -> None:
    key, graph = unique("key"), {"1": node("ExecPython", code="pass")}
    alices = await submit(world.alice, graph, key)
    assert alices.status == 403
    request_id = alices.json()["error"]["extra_info"]["request_id"]
    world.mallory.secrets.add(request_id.encode())
    mallorys = await submit(world.mallory, graph, key)
    assert mallorys.status == 403
    assert "Idempotency-Replayed" not in mallorys.headers


async def test_a_key_without_a_credential_answers_nothing(world: World) -> None:
    key, graph = unique("key"), saving(unique("nobody"), NUMBERS["alice"])
    assert (await submit(world.alice, graph, key)).status == 200
    for who in (world.nobody, world.revoked):
        answer = await submit(who, graph, key)
        assert answer.status == 401, told(answer)
        assert "Idempotency-Replayed" not in answer.headers

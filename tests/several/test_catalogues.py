"""What tenants see of several ComfyUIs: what all of them together have."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.upstream import node_catalogue
from proxy.upstream.merged_catalogue import MergedCatalogue
from proxy.wiring import fleet
from tests.several.changing import take_out, until_gone
from tests.several.test_model_memory import graph
from tests.several.test_placing import ended, listed, quick, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, put_model, several

ONLY_THERE = "only-there.safetensors"


async def models(world: SeveralWorld, who: str = "alice") -> list[str]:
    identity = {"Accept-Encoding": "identity"}
    async with world.gate.call("GET", "/object_info", who, headers=identity) as answer:
        assert answer.status == 200
        document: Any = await answer.json()
    found = document["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    return list(found[0] if isinstance(found[0], list) else found[1]["options"])


async def test_a_model_of_one_is_in_everybodys_list(two: SeveralWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_catalogue, "FRESH_S", 0.0)
    await two.gate.gate.dependencies.catalogue.renew(SECOND)
    assert ONLY_THERE not in await models(two)
    put_model(two.comfyuis[SECOND], ONLY_THERE)
    assert ONLY_THERE in await models(two)
    assert ONLY_THERE not in await _own_models(two.first.url, two)
    await two.stop(SECOND)
    assert ONLY_THERE in await models(two), "it may come back"


async def _own_models(url: str, world: SeveralWorld) -> str:
    async with world.gate.session.get(f"{url}/object_info", headers={"Accept-Encoding": "identity"}) as answer:
        return await answer.text()


async def test_each_ones_own_part_is_known_to_whoever_places_jobs(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        put_model(world.comfyuis[SECOND], ONLY_THERE)
        catalogue = world.gate.gate.dependencies.catalogue
        assert isinstance(catalogue, MergedCatalogue)
        has: dict[str, Any] = {}
        while not has.get(SECOND):  # another read may be under way that began before the model was there
            await asyncio.gather(*(part.renew() for part in catalogue.parts.values()))
            found = {name: part.snapshot.catalogue.classes for name, part in catalogue.parts.items()}
            has = {name: classes.choices_of("CheckpointLoaderSimple") for name, classes in found.items()}
        assert has == {"gpu-1": {}, "gpu-2": {"ckpt_name": {ONLY_THERE}}}


MALLORYS = {SECOND: 'tenants = ["mallory"]'}


async def both_know(world: SeveralWorld, *names: str) -> None:
    """Until the gate knows of these models, whoever has them."""
    for name in names:
        await listed(world, name)


async def all_there(world: SeveralWorld) -> None:
    await asyncio.gather(*(watcher.is_settled.wait() for watcher in world.gate.gate.dependencies.queue_watchers))


async def test_a_tenant_sees_what_those_have_that_run_its_jobs(tmp_path: Path) -> None:
    async with several(tmp_path, settings=MALLORYS) as world:
        put_model(world.comfyuis[SECOND], ONLY_THERE)
        put_model(world.first, "everybodys.safetensors")
        await both_know(world, ONLY_THERE, "everybodys.safetensors")
        assert await models(world) == ["everybodys.safetensors"]
        assert set(await models(world, "mallory")) == {"everybodys.safetensors", ONLY_THERE}

        refused = await world.gate.json("POST", "/prompt", "alice", json={"prompt": graph(ONLY_THERE)})
        never = await world.gate.json("POST", "/prompt", "alice", json={"prompt": graph("never-there.safetensors")})
        assert "prompt_id" not in refused
        assert without_names(refused, ONLY_THERE) == without_names(never, "never-there.safetensors")
        await ended(world, [await submit(world, graph(ONLY_THERE), "mallory")], "mallory")


def without_names(answer: dict[str, Any], model: str) -> str:
    """An answer but for what each is different in."""
    answer["error"]["extra_info"].pop("request_id", None)
    return json.dumps(answer).replace(model, "M")


async def test_whose_jobs_run_where_may_change(tmp_path: Path) -> None:
    async with several(tmp_path, settings=MALLORYS) as world:
        put_model(world.comfyuis[SECOND], ONLY_THERE)
        await both_know(world, ONLY_THERE)
        assert await models(world) == []
        file = world.gate.config_file
        file.write_text(file.read_text().replace('tenants = ["mallory"]', ""))
        assert await world.gate.gate.reload(file)
        assert await models(world) == [ONLY_THERE]


async def test_lists_of_models_are_of_those_that_run_ones_jobs(tmp_path: Path) -> None:
    async with several(tmp_path, settings=MALLORYS) as world:
        put_model(world.first, "first.safetensors", "embeddings")
        put_model(world.comfyuis[SECOND], "second.safetensors", "embeddings")
        await all_there(world)
        for path, first, second in (
            ("/models/embeddings", "first.safetensors", "second.safetensors"),
            ("/embeddings", "first", "second"),
        ):
            assert await world.gate.json("GET", path, "alice") == [first]
            assert await world.gate.json("GET", path, "mallory") == [first, second]
            assert await world.gate.json("GET", path) == [first], "an admin sees the first one"
        described = await world.gate.json("GET", "/experiment/models/embeddings", "mallory")
        assert [each["name"] for each in described] == ["first.safetensors", "second.safetensors"]
        for path in ("/models", "/experiment/models"):
            assert await world.gate.json("GET", path, "mallory") == await world.gate.json("GET", path, "alice")

        assert await world.gate.status("GET", "/models/no-such-folder", "mallory") == 404
        assert await world.gate.json("GET", "/models/configs", "mallory") == []
        await world.stop(SECOND)
        watcher = world.gate.gate.dependencies.queue_watchers.of(SECOND)
        while watcher.is_connected:
            await asyncio.sleep(0.02)
        assert await world.gate.json("GET", "/embeddings", "mallory") == ["first"]
        await world.stop(FIRST)
        assert await world.gate.status("GET", "/embeddings", "mallory") == 502


async def test_who_may_not_use_the_first_sees_nothing_of_its_models(tmp_path: Path) -> None:
    async with several(tmp_path, settings={FIRST: 'tenants = ["mallory"]', SECOND: 'tenants = ["alice"]'}) as world:
        put_model(world.first, "first.safetensors", "embeddings")
        put_model(world.comfyuis[SECOND], "second.safetensors", "embeddings")
        await all_there(world)
        assert await world.gate.json("GET", "/embeddings", "alice") == ["second"]
        for comfy in world.comfyuis.values():
            comfy.received.clear()
        await world.gate.status("GET", "/experiment/models/preview/embeddings/0/first.safetensors", "alice")
        await world.gate.status("GET", "/view_metadata/embeddings?filename=first.safetensors", "alice")
        seen = [each.raw_path for each in world.first.received if "first.safetensors" in each.raw_path]
        assert seen == []
        assert [each for each in world.comfyuis[SECOND].received if "first.safetensors" in each.raw_path]


async def test_what_one_had_that_has_gone_is_shown_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while no other has said anything since the gate was started."""
    monkeypatch.setattr(fleet, "STAYS_S", 0.0)
    async with several(tmp_path, settings=MALLORYS, away=FIRST, wait=False) as world:
        put_model(world.comfyuis[SECOND], ONLY_THERE)
        await world.gate.gate.dependencies.queue_watchers.of(SECOND).is_settled.wait()
        while await models(world, "mallory") != [ONLY_THERE]:
            await world.gate.gate.dependencies.catalogue.renew(SECOND)
        await take_out(world)
        await until_gone(world)
        assert await world.gate.status("GET", "/object_info", "alice") == 502
        async with world.gate.call("POST", "/prompt", "alice", json={"prompt": graph("none.safetensors")}) as answer:
            assert (answer.status, ONLY_THERE in await answer.text()) == (502, False)
        await world.start(FIRST)
        await world.gate.gate.dependencies.queue_watchers.first.is_settled.wait()
        assert await models(world) == []


async def test_who_may_use_none_is_told_so(tmp_path: Path) -> None:
    async with several(tmp_path, settings=dict.fromkeys(BOTH, 'tenants = ["mallory"]')) as world:
        answer = await world.gate.json("POST", "/prompt", "alice", json={"prompt": quick(1)})
        assert answer["error"]["type"] == "nowhere_to_run"
        assert "the operator says which do" in answer["error"]["message"]
        assert await world.gate.json("GET", "/object_info", "alice", headers={"Accept-Encoding": "identity"}) == {}
        assert await world.gate.json("GET", "/embeddings", "alice") == []


async def test_what_no_single_one_can_run_is_refused(tmp_path: Path) -> None:
    """It would wait for ever."""
    async with several(tmp_path) as world:
        put_model(world.first, "a.safetensors")
        put_model(world.comfyuis[SECOND], "b.safetensors")
        await both_know(world, "a.safetensors", "b.safetensors")
        both = graph("a.safetensors")
        both["5"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}}
        both["2"]["inputs"]["vae"] = ["5", 2]
        both["6"] = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}}
        both["7"] = {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "y"}}
        answer = await world.gate.json("POST", "/prompt", "alice", json={"prompt": both})
        assert answer["error"]["type"] == "nowhere_to_run", answer
        assert answer["error"]["details"] == (
            "gpu-1 has not the model b.safetensors of CheckpointLoaderSimple.ckpt_name; "
            "gpu-2 has not the model a.safetensors of CheckpointLoaderSimple.ckpt_name"
        )
        assert await world.gate.json("GET", "/history", "alice") == {}

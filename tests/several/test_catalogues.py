"""What tenants see of several ComfyUIs: what all of them together have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.upstream import node_catalogue
from proxy.upstream.merged_catalogue import MergedCatalogue
from tests.several.world import SECOND, SeveralWorld, put_model, several

ONLY_THERE = "only-there.safetensors"


async def models(world: SeveralWorld) -> list[str]:
    identity = {"Accept-Encoding": "identity"}
    async with world.gate.call("GET", "/object_info", "alice", headers=identity) as answer:
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

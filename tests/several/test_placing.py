"""Jobs go to the ComfyUI that fits, in the fair order, and go on with another one when it is gone."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from proxy.jobs import standstill
from tests.contract.driver import slow
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, put_model, several


def quick(number: int) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": number}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }


async def submit(world: SeveralWorld, graph: dict[str, Any], who: str = "alice") -> str:
    answer = await world.gate.json("POST", "/prompt", who, json={"prompt": graph, "client_id": "tab"})
    assert "prompt_id" in answer, answer
    return str(answer["prompt_id"])


async def ended(world: SeveralWorld, prompt_ids: list[str], who: str = "alice") -> dict[str, Any]:
    """Their history entries."""
    async with asyncio.timeout(240):
        while True:
            history = await world.gate.json("GET", "/history", who)
            if all(prompt_id in history for prompt_id in prompt_ids):
                return {prompt_id: history[prompt_id] for prompt_id in prompt_ids}
            await asyncio.sleep(0.05)


async def listed(world: SeveralWorld, model: str) -> None:
    """Until the gate knows of a model; another read may be under way that began before it was there."""
    catalogue = world.gate.gate.dependencies.catalogue
    while model not in catalogue.snapshot.catalogue.classes.choices_of("CheckpointLoaderSimple").get("ckpt_name", ()):
        await asyncio.sleep(0.05)
        await catalogue.renew()


def ran_where(world: SeveralWorld, prompt_ids: list[str]) -> Counter[str]:
    jobs = [world.gate.gate.dependencies.registry.job(prompt_id) for prompt_id in prompt_ids]
    return Counter(job.comfyui for job in jobs if job is not None)


async def test_jobs_run_on_both(two: SeveralWorld) -> None:
    ids = [await submit(two, slow(0.4, 4)) for _ in range(6)]
    await ended(two, ids)
    assert set(ran_where(two, ids)) == set(BOTH)


async def test_what_a_large_workflow_makes_is_in_the_folder_of_its_comfyui(tmp_path: Path) -> None:
    async with several(tmp_path, settings={FIRST: 'tenants = ["mallory"]'}) as world:
        large = {"class_type": "PrimitiveString", "inputs": {"value": "x" * 100_000}}
        [entry] = (await ended(world, [await submit(world, quick(1) | {"3": large})])).values()
        [image] = entry["outputs"]["2"]["images"]
        assert image == {"filename": "x_00001_.png", "subfolder": f"@{SECOND}", "type": "output"}


async def test_what_the_other_one_made_is_seen(two: SeveralWorld) -> None:
    ids = [await submit(two, quick(number)) for number in range(6)]
    entries = await ended(two, ids)
    assert set(ran_where(two, ids)) == set(BOTH)
    for entry in entries.values():
        [image] = entry["outputs"]["2"]["images"]
        query = f"filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
        assert await two.gate.status("GET", f"/view?{query}", "alice") == 200
        assert await two.gate.status("GET", f"/view?{query}", "mallory") == 404


async def test_a_job_goes_where_its_model_is(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        await listed(world, "only.safetensors")
        graph = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "only.safetensors"}},
            "2": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
            "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
            "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
        }
        ids = [await submit(world, graph) for _ in range(3)]
        await ended(world, ids)
        assert ran_where(world, ids) == {SECOND: 3}


async def test_what_a_comfyui_had_that_is_gone_goes_on_with_the_other(tmp_path: Path) -> None:
    async with several(tmp_path, settings=dict.fromkeys(BOTH, 'gone_after = "1s"')) as world:
        ids = [await submit(world, slow(1.0, 10)) for _ in range(8)]
        while not world.gate.gate.dependencies.registry.given_to(SECOND):
            await asyncio.sleep(0.02)
        await world.stop(SECOND)
        entries = await ended(world, ids)
        assert {entry["status"]["status_str"] for entry in entries.values()} == {"success"}
        assert ran_where(world, ids)[FIRST] >= 6
        await world.start(SECOND)


async def test_previews_of_one_are_there_when_another_was_restarted(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        ids = [await submit(world, slow(0.3, 3)) for _ in range(6)]
        entries = await ended(world, ids)
        registry = world.gate.gate.dependencies.registry
        at = {job.comfyui: prompt_id for prompt_id in ids if (job := registry.job(prompt_id)) is not None}
        assert set(at) == set(BOTH)
        watcher = world.gate.gate.dependencies.queue_watchers.of(SECOND)
        await world.stop(SECOND)
        while watcher.is_settled.is_set():
            await asyncio.sleep(0.02)
        await world.start(SECOND)
        await watcher.is_settled.wait()
        assert {name: await seen(world, entries[at[name]]) for name in BOTH} == {FIRST: 200, SECOND: 404}


async def seen(world: SeveralWorld, entry: dict[str, Any]) -> int:
    """The status of its preview."""
    [image] = entry["outputs"]["3"]["images"]
    query = f"filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}"
    return await world.gate.status("GET", f"/view?{query}", "alice")


async def test_what_stands_still_at_one_goes_on_with_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "STUCK_AFTER_S", 0.5)
    async with several(tmp_path) as world:
        watchers = world.gate.gate.dependencies.queue_watchers
        await asyncio.gather(*(watcher.is_settled.wait() for watcher in watchers))
        engine, is_over = world.comfyuis[SECOND]._engine, threading.Event()
        assert engine is not None
        queue = engine.life.queue
        monkeypatch.setattr(
            queue, "take", lambda: is_over.wait() and None
        )  # its HTTP lives, and its worker takes one more
        try:
            ids = [await submit(world, slow(0.3, 3)) for _ in range(8)]
            await ended(world, ids)
            assert ran_where(world, ids)[FIRST] >= 7
            while {item[1] for item in queue.snapshot()[1]} & set(ids):
                await asyncio.sleep(0.05)
        finally:
            is_over.set()


async def test_a_client_is_told_that_the_folder_of_a_comfyui_is_the_gates(two: SeveralWorld) -> None:
    graph = quick(1)
    graph["2"]["inputs"]["filename_prefix"] = f"@{SECOND}/x"
    answer = await two.gate.json("POST", "/prompt", "alice", json={"prompt": graph})
    assert [notice["type"] for notice in answer["notices"]] == ["comfyui-folder-left-out"]
    assert "notices" not in await two.gate.json("POST", "/prompt", "alice", json={"prompt": quick(2)})

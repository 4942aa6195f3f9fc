"""What runs at a ComfyUI that was restarted, so that models are there when the first job comes."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from policy.warmup import CLIENT
from proxy.jobs import warmups
from proxy.persistence.operations import Operation, Statement
from standin import StandIn
from tests.contract.driver import slow
from tests.several.test_metrics import told, until
from tests.several.test_model_memory import graph
from tests.several.test_placing import ended, quick, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, put_model, several

SLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 600.0, "steps": 600}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmups, "BEGIN_AFTER_S", 0.05)


def write_function(folder: Path, name: str, workflow: dict[str, Any]) -> None:
    (folder / "functions").mkdir(exist_ok=True)
    (folder / "functions" / f"{name}.toml").write_text("")
    (folder / "functions" / f"{name}.json").write_text(json.dumps(workflow))


def warming(*names: str) -> dict[str, str]:
    return dict.fromkeys(BOTH, f"warmup = {list(names)}")


def sample(comfyui: str, result: str) -> str:
    return f'comfygate_warmups_total{{comfyui="{comfyui}",result="{result}"}}'


def sent(comfy: StandIn) -> list[dict[str, Any]]:
    """Warm-ups that a ComfyUI was given."""
    bodies = [json.loads(each.body) for each in comfy.received if (each.method, each.raw_path) == ("POST", "/prompt")]
    return [body for body in bodies if body["client_id"] == CLIENT]


async def until_running(world: SeveralWorld, *, is_running: bool = True) -> None:
    async with asyncio.timeout(240):
        while bool((await world.gate.json("GET", "/queue"))["queue_running"]) is not is_running:
            await asyncio.sleep(0.02)


async def reconnected(world: SeveralWorld, name: str) -> None:
    watcher = world.gate.gate.dependencies.queue_watchers.of(name)
    before = world.gate.gate.dependencies.registry.connections.to(name)
    watcher._announcements.over.set()
    async with asyncio.timeout(240):
        while world.gate.gate.dependencies.registry.connections.to(name) == before:
            await asyncio.sleep(0.02)
        await watcher.is_settled.wait()


async def test_each_is_warmed_once_after_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = shutil.rmtree

    def delete_slowly(folder: Path, **how: Any) -> None:
        time.sleep(0.3)  # as on a network disk: what is counted is over all the same
        delete(folder, **how)

    monkeypatch.setattr(shutil, "rmtree", delete_slowly)
    write_function(tmp_path, "paint", quick(3))
    async with several(tmp_path, settings=warming("paint")) as world:
        for name, comfy in world.comfyuis.items():
            await until(world, sample(name, "done"), 1)
            [body] = sent(comfy)
            assert body["prompt"]["2"]["inputs"]["filename_prefix"] == f"comfygate-warmup-{name}/paint"
            assert list(Path(comfy.folders.base, "output").iterdir()) == []
            assert await world.gate.json("GET", f"/history/{body['prompt_id']}", "alice") == {}
        assert await world.gate.json("GET", "/history", "alice") == {}

        await reconnected(world, FIRST)
        await world.stop(SECOND)
        await world.start(SECOND)
        await until(world, sample(SECOND, "done"), 2)
        assert (await told(world))[sample(FIRST, "done")] == 1, "only its connection broke"
        assert len(sent(world.first)) == 1


async def test_whose_job_comes_does_not_wait_for_it(tmp_path: Path) -> None:
    write_function(tmp_path, "slow", SLOW)
    write_function(tmp_path, "paint", quick(3))
    async with several(tmp_path, (FIRST,), settings=warming("slow", "paint")) as world:
        await until_running(world)
        await ended(world, [await submit(world, quick(1))])
        await until(world, sample(FIRST, "stopped"), 1)


async def test_one_that_fails_disturbs_nothing(tmp_path: Path) -> None:
    write_function(tmp_path, "absent", {"1": {"class_type": "NotThere", "inputs": {}}})
    write_function(tmp_path, "refused", {"1": {"class_type": "PreviewImage", "inputs": {}}})
    write_function(tmp_path, "broken", graph("none.safetensors"))
    write_function(tmp_path, "paint", quick(3))
    names = ("absent", "refused", "broken", "paint")
    async with several(tmp_path, (FIRST,), settings=warming(*names)) as world:
        await until(world, sample(FIRST, "done"), 1)
        assert (await told(world))[sample(FIRST, "failed")] == 3
        await ended(world, [await submit(world, quick(1))])


async def test_what_it_has_loaded_is_known(tmp_path: Path) -> None:
    def held() -> Operation[Any]:
        rows = yield Statement("SELECT comfyui, models FROM comfyui_models")
        return [tuple(row) for row in rows]

    write_function(tmp_path, "load", graph("a.safetensors"))
    async with several(tmp_path, settings=warming("load")) as world:
        for name in BOTH:
            await until(world, sample(name, "failed"), 1)
        put_model(world.comfyuis[SECOND], "a.safetensors")
        await world.stop(SECOND)
        await world.start(SECOND)
        await until(world, sample(SECOND, "done"), 1)
        assert await world.gate.gate._state.read(held) == [(SECOND, "a.safetensors")]


async def test_where_jobs_are_already_none_begins(tmp_path: Path) -> None:
    write_function(tmp_path, "paint", quick(3))
    async with several(tmp_path, (FIRST,), settings=warming("paint")) as world:
        await until(world, sample(FIRST, "done"), 1)
        await submit(world, slow(60.0, 60))
        async with asyncio.timeout(240):
            while not world.gate.gate.dependencies.registry.given_to(FIRST):
                await asyncio.sleep(0.02)
        world.gate.gate._warmups.start(FIRST)
        await until(world, sample(FIRST, "stopped"), 1)
        assert len(sent(world.first)) == 1


async def test_one_that_hangs_is_stopped_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_function(tmp_path, "slow", SLOW)
    write_function(tmp_path, "absent", {"1": {"class_type": "NotThere", "inputs": {}}})
    monkeypatch.setattr(warmups, "LIMIT_S", -1.0)
    async with several(tmp_path, (FIRST,), settings=warming("slow", "absent")) as world:
        await until(world, sample(FIRST, "failed"), 2)
        await until_running(world, is_running=False)


async def test_one_whose_comfyui_goes_away_has_failed(tmp_path: Path) -> None:
    write_function(tmp_path, "slow", SLOW)
    async with several(tmp_path, (FIRST,), settings=warming("slow")) as world:
        await until_running(world)
        await world.stop(FIRST)
        await until(world, sample(FIRST, "failed"), 1)

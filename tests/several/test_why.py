"""What `comfygate jobs why` says beside a gate with two ComfyUIs is what is so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.jobs import standstill
from tests.commands.cli import aside
from tests.contract.driver import slow
from tests.several.test_estimates import ONE_EACH, held, runs
from tests.several.test_placing import listed, quick, submit
from tests.several.test_stuck import all_there, dead_worker
from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several


async def why(world: SeveralWorld, prompt_id: str) -> dict[str, Any]:
    said = await aside("jobs", "why", prompt_id, "--json", "--config", world.gate.config_file)
    found: dict[str, Any] = orjson.loads(said.out)
    return found


def lacks(found: dict[str, Any]) -> dict[str, str | None]:
    return {each["name"]: each["lacks"] for each in found["comfyuis"]}


async def test_who_waits_for_a_model_is_told_of_those_alone_that_wait_there(tmp_path: Path) -> None:
    async with several(tmp_path, settings=ONE_EACH) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        await listed(world, "only.safetensors")
        await runs(world, await submit(world, held("only.safetensors")))
        await runs(world, await submit(world, slow()))
        beside = [await submit(world, held("only.safetensors")), *[await submit(world, slow(1.0)) for _ in range(3)]]
        waits = await submit(world, held("only.safetensors"))
        found = await why(world, waits)
        assert found["why"] == ["4 jobs come before it, 4 of its own tenant.", f"{SECOND} has no room."]
        assert lacks(found) == {FIRST: "the model only.safetensors of CheckpointLoaderSimple.ckpt_name", SECOND: None}
        assert (await why(world, beside[-1]))["before"] == {"own": 3, "others": 0}

        assert (
            await aside("jobs", "drain", "--comfyui", SECOND, "--wait", "0", "--config", world.gate.config_file)
        ).code
        assert (await why(world, waits))["why"][-1] == f"{SECOND} is drained."


async def test_jobs_of_those_that_may_not_go_there_are_not_before_it(tmp_path: Path) -> None:
    settings = {FIRST: 'window = 1\ntenants = ["alice"]', SECOND: 'window = 1\ntenants = ["mallory"]'}
    async with several(tmp_path, settings=settings) as world:
        await runs(world, await submit(world, slow()))
        for _ in range(3):
            await submit(world, slow(), "mallory")
        found = await why(world, await submit(world, quick(1)))
        assert found["why"] == [f"{FIRST} has no room."]
        assert lacks(found) == {FIRST: None, SECOND: "alice among its tenants"}


async def test_who_waits_for_one_that_runs_nothing_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "STUCK_AFTER_S", 0.2)
    async with several(tmp_path) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        await listed(world, "only.safetensors")
        await all_there(world)
        with dead_worker(world.comfyuis[SECOND]):
            ids = [await submit(world, held("only.safetensors")) for _ in range(3)]
            async with asyncio.timeout(240):
                while f"{SECOND} has jobs waiting and runs none." not in (found := await why(world, ids[-1])).get(
                    "why", ()
                ):
                    await world.gate.status("POST", "/interrupt", "alice", json={"prompt_id": ids[0]})
                    await asyncio.sleep(0.1)
            assert found["comfyuis"][1]["stuck"] is True

"""When a job will probably begin: where it may go, and not wherever there is room."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from policy.principal import TenantId
from proxy.jobs import job_places
from tests.commands.cli import aside
from tests.contract.driver import slow
from tests.several.test_model_memory import graph
from tests.several.test_placing import listed, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, put_model, several

ALICE = TenantId("alice")
ONE_EACH = dict.fromkeys(BOTH, "window = 1")


def held(model: str) -> dict[str, Any]:
    """A job with this model that lasts until it is stopped."""
    made = graph(model)
    made["5"] = {"class_type": "SlowProgress", "inputs": {"image": ["2", 0], "seconds": 600.0, "steps": 600}}
    made["4"]["inputs"]["images"] = ["5", 0]
    return made


async def runs(world: SeveralWorld, prompt_id: str) -> None:
    async with asyncio.timeout(240):
        while prompt_id not in world.gate.gate.dependencies.registry.of(ALICE).running():
            await asyncio.sleep(0.02)


async def estimates(world: SeveralWorld) -> dict[str, float | None]:
    """Seconds from now, of those that wait."""
    told, now_s = await world.gate.gate.dependencies.jobs.forecasts.of(ALICE), time.time()
    starts = {each.prompt_id: each.starts_at_s for each in told if each.state == "waiting"}
    return {name: None if at_s is None else at_s - now_s for name, at_s in starts.items()}


async def test_a_job_is_expected_at_the_one_that_has_its_model(tmp_path: Path) -> None:
    async with several(tmp_path, settings=ONE_EACH) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        await listed(world, "only.safetensors")
        await runs(world, await submit(world, held("only.safetensors")))
        waits = await submit(world, held("only.safetensors"))
        [(name, in_s)] = (await estimates(world)).items()
        assert name == waits
        assert in_s is not None
        assert in_s > 1.0, "though gpu-1 has nothing to do"
        alone = await world.gate.gate.dependencies.jobs.forecasts.start_of(ALICE, waits)
        assert alone == pytest.approx(time.time() + in_s, abs=2.0)

        assert (
            await aside("jobs", "drain", "--comfyui", SECOND, "--wait", "0", "--config", world.gate.config_file)
        ).code == 1
        assert await estimates(world) == {waits: None}, "nobody can tell"


async def test_a_job_is_expected_at_those_that_its_tenant_may_use(tmp_path: Path) -> None:
    settings = {FIRST: "window = 1", SECOND: 'window = 1\ntenants = ["mallory"]'}
    async with several(tmp_path, settings=settings) as world:
        await runs(world, await submit(world, slow()))
        waits = await submit(world, slow())
        [(name, in_s)] = (await estimates(world)).items()
        assert name == waits
        assert in_s is not None
        assert in_s > 1.0, "though gpu-2 has nothing to do"


async def test_what_a_job_needs_is_read_once_and_again_when_the_catalogue_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_places, "LEARNED_AT_ONCE", 1)
    async with several(tmp_path, settings=ONE_EACH) as world:
        put_model(world.comfyuis[SECOND], "only.safetensors")
        await listed(world, "only.safetensors")
        ids = [await submit(world, held("only.safetensors"))]
        await runs(world, ids[0])
        ids += [await submit(world, held("only.safetensors")) for _ in range(2)]
        found = [await estimates(world) for _ in range(3)]
        assert [[is_late(each[name]) for name in ids[1:]] for each in found] == [
            [True, False],
            [True, True],
            [True, True],
        ]

        places, job = (
            world.gate.gate.dependencies.jobs.forecasts._places,
            world.gate.gate.dependencies.registry.job(ids[2]),
        )
        assert places is not None
        assert job is not None
        assert set(places.of(job) or ()) == {SECOND}
        put_model(world.first, "only.safetensors")
        await world.gate.gate.dependencies.catalogue.renew()
        async with asyncio.timeout(240):
            while set(places.of(job) or ()) != set(BOTH):
                await estimates(world)


def is_late(in_s: float | None) -> bool:
    """Not at once, as where there is room."""
    return in_s is not None and in_s > 1.0

"""What /metrics tells of each ComfyUI."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.persistence.operations import DatabaseUnavailable
from proxy.wiring import gauges
from tests.commands.cli import aside
from tests.contract.driver import slow
from tests.several.test_model_memory import graph
from tests.several.test_placing import ended, listed, submit
from tests.several.world import BOTH, FIRST, SECOND, SeveralWorld, put_model, several


async def told(world: SeveralWorld) -> dict[str, float]:
    """Samples by name and labels."""
    async with world.gate.session.get(f"{world.gate.ops_url}/metrics") as response:
        lines = (await response.text()).splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith("comfygate_"))
    return {name: float(value) for name, _, value in found}


async def until(world: SeveralWorld, sample: str, value: float) -> None:
    async with asyncio.timeout(240):
        while (await told(world)).get(sample) != value:
            await asyncio.sleep(0.05)


async def test_each_is_told_of(tmp_path: Path) -> None:
    async with several(tmp_path, settings={SECOND: "window = 3\nweight = 2.0"}) as world:
        ids = [await submit(world, slow(0.4, 4)) for _ in range(4)]
        await ended(world, ids)
        samples = await told(world)

        for name, window in ((FIRST, 2), (SECOND, 3)):
            label = f'{{comfyui="{name}"}}'
            assert samples[f"comfygate_comfyui_up{label}"] == 1
            assert samples[f"comfygate_comfyui_stuck{label}"] == 0
            assert samples[f"comfygate_comfyui_window{label}"] == window
            assert samples[f"comfygate_comfyui_gpu_seconds_total{label}"] > 0
        ran = [
            samples[f'comfygate_comfyui_jobs_ended_total{{comfyui="{name}",outcome="completed"}}']
            for name in world.comfyuis
        ]
        assert (sum(ran), min(ran) > 0) == (4, True)
        assert samples["comfygate_upstream_up"] == 1

        await world.stop(SECOND)
        await until(world, f'comfygate_comfyui_up{{comfyui="{SECOND}"}}', 0)
        assert (await told(world))["comfygate_upstream_up"] == 1
        await world.start(SECOND)
        await until(world, f'comfygate_comfyui_up{{comfyui="{SECOND}"}}', 1)


async def test_what_one_lost_waits_again_and_is_counted_there(tmp_path: Path) -> None:
    async with several(tmp_path, settings={SECOND: 'gone_after = "1s"'}) as world:
        ids = [await submit(world, slow(20.0, 4)) for _ in range(2)]
        for name in world.comfyuis:
            await until(world, f'comfygate_comfyui_given{{comfyui="{name}"}}', 1)
        samples = await told(world)
        assert samples[f'comfygate_comfyui_wait_seconds{{comfyui="{SECOND}"}}'] > 0

        await world.stop(SECOND)
        again = f'comfygate_comfyui_jobs_tried_again_total{{comfyui="{SECOND}",reason="comfyui-gone"}}'
        await until(world, again, 1)
        await until(world, f'comfygate_comfyui_given{{comfyui="{SECOND}"}}', 0)
        assert len(ids) == 2


async def test_one_alone_is_told_of_as_ever(tmp_path: Path) -> None:
    async with several(tmp_path, names=(FIRST,)) as world:
        await ended(world, [await submit(world, slow(0.1, 2))])

        assert not [name for name in await told(world) if name.startswith("comfygate_comfyui_")]


def models(samples: dict[str, float]) -> set[str]:
    return {
        name.removeprefix("comfygate_comfyui_models")
        for name in samples
        if name.startswith("comfygate_comfyui_models{")
    }


async def test_which_models_each_was_given_last_until_it_is_restarted(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        put_model(world.comfyuis[SECOND], "a.safetensors")
        await listed(world, "a.safetensors")
        await ended(world, [await submit(world, graph("a.safetensors"))])
        held = f'{{comfyui="{SECOND}",model="a.safetensors"}}'
        assert models(await told(world)) == {held}

        await world.stop(SECOND)
        await until(world, f'comfygate_comfyui_up{{comfyui="{SECOND}"}}', 0)
        assert models(await told(world)) == {held}, "it may be back with them"
        await world.start(SECOND)
        async with asyncio.timeout(240):
            while models(await told(world)):
                await asyncio.sleep(0.05)


async def test_which_of_them_are_drained(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        for arguments, drained in (
            (("--comfyui", SECOND), {SECOND}),
            (("--comfyui", SECOND, "--off"), set()),
            ((), set(BOTH)),
        ):
            await aside("jobs", "drain", *arguments, "--config", world.gate.config_file)
            samples = await told(world)
            assert {name for name in BOTH if samples[f'comfygate_comfyui_drained{{comfyui="{name}"}}']} == drained


async def test_a_scrape_is_answered_while_the_database_hangs(
    two: SeveralWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "PATIENCE_S", 0.05)
    is_over = asyncio.Event()

    async def hangs(*arguments: object) -> object:
        await is_over.wait()
        raise DatabaseUnavailable("it was closed")

    await told(two)
    monkeypatch.setattr(two.gate.gate._state, "read", hangs)
    try:
        for _ in range(2):
            assert (await told(two))[f'comfygate_comfyui_drained{{comfyui="{SECOND}"}}'] == 0
    finally:
        is_over.set()

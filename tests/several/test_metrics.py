"""What /metrics tells of each ComfyUI."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.contract.driver import slow
from tests.several.test_placing import ended, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, several


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

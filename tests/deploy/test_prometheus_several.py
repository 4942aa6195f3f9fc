"""What the dashboard shows of several ComfyUIs, as a real Prometheus has it, where that is installed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp

from tests.commands.cli import aside
from tests.deploy.queries import RANGE, panel_queries
from tests.deploy.test_prometheus import ask, prometheus
from tests.programs import needs
from tests.several.test_model_memory import graph
from tests.several.test_placing import ended, listed, submit
from tests.several.world import BOTH, SECOND, SeveralWorld, put_model, several

# What no ComfyUI here does: lose a job, be warmed.
MAY_BE_EMPTY = ("jobs_tried_again", "warmups")
MODELS = dict(zip(BOTH, ("a.safetensors", "b.safetensors"), strict=True))


def queries() -> dict[str, str]:
    """Of the panels of each ComfyUI, by name."""
    found = ((name, RANGE.sub("1m", expression)) for name, expression in panel_queries())
    return {
        name: expression
        for name, expression in found
        if "comfyui" in expression and not any(metric in expression for metric in MAY_BE_EMPTY)
    }


def failing(model: str) -> dict[str, Any]:
    """The stand-in has this class and cannot run it."""
    blend = {"image1": ["2", 0], "image2": ["2", 0], "blend_factor": 0.5, "blend_mode": "normal"}
    made = graph(model) | {"5": {"class_type": "ImageBlend", "inputs": blend}}
    made["4"]["inputs"]["images"] = ["5", 0]
    return made


async def run_some(world: SeveralWorld) -> None:
    """Each runs what it alone has the model of."""
    await ended(world, [await submit(world, make(model)) for model in MODELS.values() for make in (graph, failing)])


@needs("prometheus")
async def test_every_panel_shows_both(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        world = await stack.enter_async_context(several(tmp_path))
        for name, model in MODELS.items():
            put_model(world.comfyuis[name], model)
            await listed(world, model)
        server = await stack.enter_async_context(prometheus(tmp_path, world.gate.ops_url.removeprefix("http://")))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        missing = queries()
        assert len(missing) >= 10
        async with asyncio.timeout(240):
            while missing:
                await run_some(world)
                for name, expression in list(missing.items()):
                    with contextlib.suppress(aiohttp.ClientError):
                        found = await ask(session, server, expression)
                        if {each["metric"].get("comfyui") for each in found} >= set(BOTH):
                            del missing[name]
                await asyncio.sleep(0.2)
        assert (await aside("jobs", "drain", "--comfyui", SECOND, "--config", world.gate.config_file)).code == 0
        async with asyncio.timeout(240):
            while not await ask(session, server, f'comfygate_comfyui_drained{{comfyui="{SECOND}"}} == 1'):
                await asyncio.sleep(0.2)

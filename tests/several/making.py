"""Files that one of several ComfyUIs has made, as a job of a tenant's leaves them there: made without the gate."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from policy.principal import TenantId
from tests.several.world import SeveralWorld

Graph = dict[str, Any]


def saving(prefix: str, color: int = 0) -> Graph:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def previewing(color: int = 0) -> Graph:
    return saving("", color) | {"2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


async def run_at(world: SeveralWorld, name: str, graph: Graph) -> list[dict[str, str]]:
    """What ComfyUI says of the files of node 2: filename, subfolder, type."""
    url = world.comfyuis[name].url
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/prompt", json={"prompt": graph}) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        while True:
            async with session.get(f"{url}/history/{prompt_id}") as answer:
                entry = (await answer.json()).get(prompt_id)
            if entry is not None:
                found: list[dict[str, str]] = entry["outputs"]["2"]["images"]
                return found
            await asyncio.sleep(0.01)


async def preview_at(world: SeveralWorld, name: str, tenant: str, color: int = 0) -> str:
    """A file in the temp folder of this ComfyUI, as the gate knows of one that a job of the tenant's shows."""
    [made] = await run_at(world, name, previewing(color))
    registry = world.gate.gate.dependencies.registry
    job = registry.claim(TenantId(tenant), None)
    job.comfyui = name
    registry.add_temp_files(job.prompt_id, (made["filename"],))
    return made["filename"]

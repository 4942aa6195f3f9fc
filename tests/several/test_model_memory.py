"""A ComfyUI whose memory is short unloads its models before a job that needs others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.several.test_placing import ended, listed, submit
from tests.several.world import FIRST, SECOND, SeveralWorld, put_model, several


def graph(model: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }


def unloads(world: SeveralWorld) -> dict[str, int]:
    return {
        name: sum(each.raw_path == "/free" for each in comfy.received if each.method == "POST")
        for name, comfy in world.comfyuis.items()
    }


async def test_models_are_unloaded_when_others_come_and_memory_is_short(tmp_path: Path) -> None:
    async with several(tmp_path) as world:
        comfy = world.comfyuis[SECOND]
        for model in ("a.safetensors", "b.safetensors"):
            put_model(comfy, model)
        await listed(world, "b.safetensors")
        for model in ("a", "b"):
            await ended(world, [await submit(world, graph(f"{model}.safetensors"))])
        assert unloads(world) == {FIRST: 0, SECOND: 0}, "there is room for both"
        comfy.memory.free_bytes = 1024**3
        for model in ("b", "a", "a"):
            await ended(world, [await submit(world, graph(f"{model}.safetensors"))])
        assert unloads(world) == {FIRST: 0, SECOND: 1}

"""What judging a workflow costs: CPU time to parse, judge and write one again, beside json.loads and json.dumps of the same bytes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from policy.catalogue import Catalogue, read_catalogue
from policy.judge import Policy, compile_policy, judge
from policy.settings import PolicySettings

SIZES: Final = (7, 50, 500)
TARGET_US: Final = {7: 60, 50: 200, 500: 1500}
ROUNDS: Final = 7

SETTINGS: Final = {
    "default": PolicySettings.model_validate(
        {
            "allow": ["CLIPText*", "VAE*", "@core-image"],
            "deny": ["*Upload*"],
            "max_nodes": 1000,
            "inputs": {
                "KSampler.steps": {"max": 50},
                "*.batch_size": {"max": 4},
                "CheckpointLoaderSimple.ckpt_name": {"allow": ["sd_xl*"]},
            },
            "budgets": {"pixels": {"of": "width*height*batch_size?", "max": 4194304}},
        }
    )
}
PRESETS: Final = {
    "core-image": frozenset(
        {"CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "SaveImage", "LoraLoader", "ImageScale"}
    )
}

_NUMBER: Final = ["INT", {"default": 512, "min": 16, "max": 16384}]
_CLASSES: Final[dict[str, tuple[dict[str, Any], list[str]]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name": [["sd_xl_base.safetensors"], {}]}, ["MODEL", "CLIP", "VAE"]),
    "LoraLoader": (
        {
            "model": ["MODEL"],
            "clip": ["CLIP"],
            "lora_name": [["detail.safetensors"], {}],
            "strength_model": ["FLOAT", {}],
            "strength_clip": ["FLOAT", {}],
        },
        ["MODEL", "CLIP"],
    ),
    "CLIPTextEncode": ({"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}, ["CONDITIONING"]),
    "EmptyLatentImage": ({"width": _NUMBER, "height": _NUMBER, "batch_size": ["INT", {}]}, ["LATENT"]),
    "KSampler": (
        {
            "model": ["MODEL"],
            "seed": ["INT", {}],
            "steps": ["INT", {}],
            "cfg": ["FLOAT", {}],
            "sampler_name": [["euler"], {}],
            "scheduler": [["normal"], {}],
            "positive": ["CONDITIONING"],
            "negative": ["CONDITIONING"],
            "latent_image": ["LATENT"],
            "denoise": ["FLOAT", {}],
        },
        ["LATENT"],
    ),
    "VAEDecode": ({"samples": ["LATENT"], "vae": ["VAE"]}, ["IMAGE"]),
    "ImageScale": (
        {
            "image": ["IMAGE"],
            "upscale_method": [["lanczos"], {}],
            "width": _NUMBER,
            "height": _NUMBER,
            "crop": [["disabled"], {}],
        },
        ["IMAGE"],
    ),
    "SaveImage": ({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, []),
}


def make_catalogue() -> Catalogue:
    return read_catalogue(
        {
            name: {"input": {"required": inputs}, "output": outputs, "output_node": name == "SaveImage"}
            for name, (inputs, outputs) in _CLASSES.items()
        }
    )


def make_workflow(count: int) -> dict[str, Any]:
    """A text-to-image graph, repeated with LoRAs and a resize until it has `count` nodes; ids in the order of execution."""
    chance = random.Random(count)
    nodes: dict[str, Any] = {}

    def add(class_type: str, **inputs: Any) -> str:
        node_id = str(len(nodes) + 1)
        nodes[node_id] = {"inputs": inputs, "class_type": class_type, "_meta": {"title": class_type}}
        return node_id

    loader = add("CheckpointLoaderSimple", ckpt_name="sd_xl_base.safetensors")
    while len(nodes) < count:
        seed = chance.getrandbits(50)
        model = loader
        if count > 7:
            names = {"lora_name": "detail.safetensors", "strength_model": 0.8, "strength_clip": 0.8}
            model = add("LoraLoader", model=[loader, 0], clip=[loader, 1], **names)
        positive = add("CLIPTextEncode", text="a lighthouse on a cliff, storm, oil painting", clip=[model, 1])
        negative = add("CLIPTextEncode", text="blurry, text: watermark", clip=[model, 1])
        latent = add("EmptyLatentImage", width=1024, height=1024, batch_size=1)
        sampled = add(
            "KSampler",
            model=[model, 0],
            seed=seed,
            steps=20,
            cfg=7.5,
            sampler_name="euler",
            scheduler="normal",
            positive=[positive, 0],
            negative=[negative, 0],
            latent_image=[latent, 0],
            denoise=1,
        )
        image = add("VAEDecode", samples=[sampled, 0], vae=[loader, 2])
        if count > 7:
            image = add(
                "ImageScale", image=[image, 0], upscale_method="lanczos", width=1536, height=1536, crop="disabled"
            )
        add("SaveImage", images=[image, 0], filename_prefix="image")
    return dict(list(nodes.items())[:count])


def measure_us(work: Callable[[], object]) -> float:
    """CPU microseconds of one call: the least of several rounds, so that neighbours on the machine count less."""
    repeats, spent = 1, 0
    while spent < 20_000_000:
        repeats *= 2
        spent = _spend(work, repeats)
    return min([spent, *(_spend(work, repeats) for _ in range(ROUNDS))]) / repeats / 1000


def _spend(work: Callable[[], object], repeats: int) -> int:
    start = time.process_time_ns()
    for _ in range(repeats):
        work()
    return time.process_time_ns() - start


def judge_and_write(body: bytes, policy: Policy, catalogue: Catalogue) -> bytes:
    judged = judge(body, policy, catalogue)
    return orjson.dumps({"prompt": judged.nodes, "client_id": judged.client_id, "extra_data": judged.extra_data})


def main() -> None:
    catalogue = make_catalogue()
    policy = compile_policy("default", SETTINGS, PRESETS, {})
    print("judging a workflow, parsing and writing included (CPU µs)")
    print(f"{'nodes':>6} {'bytes':>8} {'judged':>9} {'target':>7} {'json':>9} {'ratio':>6}")
    for size in SIZES:
        body = json.dumps({"client_id": "bench", "prompt": make_workflow(size)}).encode()
        judged = measure_us(lambda body=body: judge_and_write(body, policy, catalogue))  # type: ignore[misc]
        plain = measure_us(lambda body=body: json.dumps(json.loads(body)))  # type: ignore[misc]
        print(f"{size:>6} {len(body):>8} {judged:>9.1f} {TARGET_US[size]:>7} {plain:>9.1f} {judged / plain:>6.2f}")


if __name__ == "__main__":
    main()

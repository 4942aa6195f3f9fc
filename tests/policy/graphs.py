"""A small ComfyUI for the tests of the policy, and workflows for it."""

from __future__ import annotations

import copy
from typing import Any

import orjson

from policy.catalogue import Catalogue, read_catalogue
from policy.judge import JudgedPrompt, Policy, compile_policy, judge
from policy.settings import PolicySettings
from policy.violation import Violation

_STRING = ["STRING", {"multiline": True}]


def _node(
    required: dict[str, Any], outputs: list[str], optional: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    sections = {"required": required} | ({"optional": optional} if optional else {})
    entry = {"input": sections, "output": outputs, "output_node": False, "python_module": "nodes"}
    return entry | more


def _primitive(kind: str) -> dict[str, Any]:
    return _node({"value": [kind, {}]}, [kind], python_module="comfy_extras.nodes_primitive")


OBJECT_INFO: dict[str, Any] = {
    "CheckpointLoaderSimple": _node(
        {"ckpt_name": [["sd_xl_base.safetensors", "flux.safetensors"], {}]}, ["MODEL", "CLIP", "VAE"]
    ),
    "CLIPTextEncode": _node({"text": _STRING, "clip": ["CLIP"]}, ["CONDITIONING"]),
    "EmptyLatentImage": _node(
        {
            "width": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
            "height": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
        },
        ["LATENT"],
    ),
    "KSampler": _node(
        {
            "model": ["MODEL"],
            "seed": ["INT", {"default": 0}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
            "sampler_name": [["euler", "dpmpp_2m"]],
            "positive": ["CONDITIONING"],
            "negative": ["CONDITIONING"],
            "latent_image": ["LATENT"],
        },
        ["LATENT"],
        {"denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}]},
    ),
    "VAEDecode": _node({"samples": ["LATENT"], "vae": ["VAE"]}, ["IMAGE"]),
    "SaveImage": _node(
        {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
        [],
        output_node=True,
        display_name="Save Image",
    ),
    "LoadImage": _node({"image": [["a.png"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
    "ImageBlur": _node({"image": ["IMAGE"], "enabled": ["BOOLEAN", {}]}, ["IMAGE"]),
    "Resize": _node(
        {
            "image": ["IMAGE"],
            "resize_type": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {
                            "key": "by size",
                            "inputs": {"required": {"width": ["INT", {"max": 16384}], "height": ["INT", {}]}},
                        },
                        {"key": "by factor", "inputs": {"required": {"multiplier": ["FLOAT", {}]}}},
                    ]
                },
            ],
        },
        ["IMAGE"],
    ),
    "Batch": _node(
        {
            "images": [
                "COMFY_AUTOGROW_V3",
                {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 3}},
            ]
        },
        ["IMAGE"],
    ),
    "Curve": _node({"curve": ["CURVE", {}]}, ["CURVE"]),
    "Tags": _node({"tags": ["COMBO", {"options": ["a", "b"], "multiselect": True}]}, ["STRING"]),
    "Paid": _node({"prompt": _STRING}, ["IMAGE"], api_node=True, output_node=True),
    "PrimitiveInt": _primitive("INT"),
    "PrimitiveFloat": _primitive("FLOAT"),
    "PrimitiveString": _primitive("STRING"),
    "Add": _node({"a": ["INT", {}], "b": ["INT", {}]}, ["INT"]),
    "Secret": _node({"text": _STRING}, ["STRING"]),
}

CATALOGUE = read_catalogue(OBJECT_INFO)
PRESETS = {"core": frozenset({"CheckpointLoaderSimple", "KSampler"}), "api": frozenset({"Paid"})}
ALL_BUT_SECRET = [name for name in OBJECT_INFO if name != "Secret"]


def make_policy(**fields: Any) -> Policy:
    """A policy that permits everything but Secret, as far as the fields do not say otherwise."""
    documents = fields.pop("documents", {})
    settings = PolicySettings.model_validate({"allow": ALL_BUT_SECRET} | fields)
    return compile_policy("p", {"p": settings}, PRESETS, documents)


def make_prompt() -> dict[str, Any]:
    """Text to image, seven nodes."""
    return copy.deepcopy(
        {
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base.safetensors"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
            "3": {
                "class_type": "KSampler",
                "inputs": {
                    "model": ["4", 0],
                    "seed": 7,
                    "steps": 20,
                    "cfg": 7.5,
                    "sampler_name": "euler",
                    "positive": ["6", 0],
                    "negative": ["7", 0],
                    "latent_image": ["5", 0],
                    "denoise": 1,
                },
            },
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {
                "class_type": "SaveImage",
                "inputs": {"images": ["8", 0], "filename_prefix": "x"},
                "_meta": {"title": "Save"},
            },
        }
    )


def run(prompt: Any, policy: Policy | None = None, catalogue: Catalogue = CATALOGUE, **body: Any) -> JudgedPrompt:
    return judge(orjson.dumps({"prompt": prompt} | body), policy or make_policy(), catalogue)


def refused(prompt: Any, policy: Policy | None = None, **body: Any) -> Violation:
    """The violation that a workflow gets; fails when it is permitted."""
    try:
        run(prompt, policy, **body)
    except Violation as violation:
        return violation
    raise AssertionError("the workflow was permitted")


def codes(violation: Violation) -> set[tuple[str, str | None, str]]:
    """(node, input, code) of every error of a violation."""
    return {
        (node_id, error["extra_info"].get("input_name"), error["type"])
        for node_id, entry in violation.node_errors.items()
        for error in entry["errors"]
    }


def with_input(node: str, name: str, value: Any) -> dict[str, Any]:
    prompt = make_prompt()
    prompt[node]["inputs"][name] = value
    return prompt


def with_node(node: Any, node_id: str = "20") -> dict[str, Any]:
    return make_prompt() | {node_id: node}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


SPELLINGS = [
    "secret",
    "SECRET",
    " Secret",
    "Secret ",
    "Secret\n",
    "Secret\x00",
    "S\u0435cret",
    "\uff33ecret",
    "Sec\u200bret",
    "",
]

#!/usr/bin/env bash
# finding: the second LoRA that this library puts into a workflow takes the id after the first one's, and with it the place of the node that had that id
# about: comfyui-reflex
# guess: a node that is put in gets an id which is free
# concerns: the page numbers nodes one by one, so the next id is nearly always taken: here the LoRA stands where the KSampler was, and the graph has no sampler any more; with one LoRA all is well
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-reflex==0.1.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

from comfyui_reflex import ComfyWorkflow

WORKFLOW = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "2": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "a.safetensors", "strength_model": 1, "strength_clip": 1, "model": ["1", 0], "clip": ["1", 1]},
    },
    "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "seed": 7}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


def classes(*loras: tuple[str, float]) -> dict[str, str]:
    """Class by node id after these LoRAs were put in, where the workflow has its own."""
    made = ComfyWorkflow(WORKFLOW).inject_loras(list(loras), lora_config="2").to_dict()
    return {node_id: node["class_type"] for node_id, node in sorted(made.items())}


one, two = classes(("ink.safetensors", 0.8)), classes(("ink.safetensors", 0.8), ("fog.safetensors", 0.5))
print("comfyui-reflex", version("comfyui-reflex"))
print("guess: four nodes with one LoRA, and five with two")
print(f"seen:  one LoRA: {one}")
print(f"seen:  two LoRAs: {two}")
assert one["3"] == "KSampler"
assert "KSampler" not in two.values()
assert two["3"] == "LoraLoader"
PROGRAM

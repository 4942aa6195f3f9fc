#!/usr/bin/env bash
# finding: a LoRA that this library puts into a workflow becomes three inputs of the node that loads the checkpoint, which has no such inputs, so the picture is made without it
# about: comfyui-reflex, inject_lora() and inject_loras()
# guess: a node LoraLoader between the checkpoint and the nodes that use its model and clip, as the description says ("chained into the graph") and as its example does it
# concerns: whoever follows the example of its page: ComfyUI ignores an input that a class does not have, so the job succeeds, and the strength of the clip that was asked for is nowhere; a list of nodes for the parameter lora_config makes the node
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
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
    "10": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}},
}
workflow = ComfyWorkflow(WORKFLOW).inject_lora("detail.safetensors", strength_model=0.8, strength_clip=0.3).to_dict()
classes = [node["class_type"] for node in workflow.values()]
print("comfyui-reflex", version("comfyui-reflex"))
print("guess: a LoraLoader with 0.8 and 0.3, from which the sampler has its model")
print(f"seen:  the classes {classes}, the sampler's model {workflow['10']['inputs']['model']}")
print(f"seen:  CheckpointLoaderSimple has {workflow['4']['inputs']}")
assert "LoraLoader" not in classes
assert workflow["10"] == WORKFLOW["10"]
assert workflow["4"]["inputs"] == {
    "ckpt_name": "sdxl.safetensors",
    "lora_name": "detail.safetensors",
    "strength_model": 0.8,
    "strength_clip": 0.8,
}
PROGRAM

#!/usr/bin/env bash
# finding: this tool counts every embedding as a model that no workflow uses, and lists it for deletion, though a prompt in the workflow names it
# about: comfy-model-vault
# guess: "embedding:easynegative" in a prompt is a use of embeddings/easynegative.safetensors, as ComfyUI reads it
# concerns: whoever makes room with orphans --delete: embeddings are named in prompts without folder and extension, so each of them goes, and the next run of the workflow warns and makes another picture
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-model-vault==0.3.1

"$python" - "$folder" <<'PROGRAM'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from comfy_vault.core import collect_references, find_orphans, scan

models, workflows = Path(sys.argv[1]) / "models", Path(sys.argv[1]) / "workflows"
WORKFLOW = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "embedding:easynegative, blurry", "clip": ["4", 1]}},
}
FILES = ("checkpoints/sd15.safetensors", "checkpoints/unused.safetensors", "embeddings/easynegative.safetensors")
for name in FILES:
    (models / name).parent.mkdir(parents=True, exist_ok=True)
    (models / name).write_bytes(b"weights")
workflows.mkdir()
(workflows / "portrait.json").write_text(json.dumps(WORKFLOW))
report = find_orphans(scan([models]), collect_references([workflows]))
orphans = sorted(f"{model.category}/{model.relpath}" for model in report.orphans)
print("comfy-model-vault", version("comfy-model-vault"))
print("guess: ['checkpoints/unused.safetensors']")
print(f"seen:  {orphans}")
assert orphans == ["checkpoints/unused.safetensors", "embeddings/easynegative.safetensors"]
PROGRAM

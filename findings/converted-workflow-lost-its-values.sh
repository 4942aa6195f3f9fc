#!/usr/bin/env bash
# finding: a workflow of the web UI that this client converts keeps the values of the classes that the client knows and loses those of all others
# about: comfyui-workflow-client
# guess: the conversion keeps every value, or says which it cannot keep
# concerns: the API format names inputs, the web UI's format lists values; only /object_info tells which is which, and the converter does not ask
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-workflow-client==0.1.0 requests==2.32.5 aiohttp==3.14.5 pillow==13.0.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

from comfyuiclient import convert_workflow_to_api

WORKFLOW = {
    "nodes": [
        {"id": 1, "type": "EmptyLatentImage", "widgets_values": [512, 768, 1]},
        {"id": 2, "type": "EmptyImage", "widgets_values": [512, 768, 1, 255]},
        {"id": 3, "type": "KSampler", "widgets_values": [7, "fixed", 20, 8.0, "euler", "normal", 1.0]},
    ],
    "links": [],
    "version": 0.4,
}
converted = {key: node["inputs"] for key, node in convert_workflow_to_api(WORKFLOW).items()}
print("comfyui-workflow-client", version("comfyui-workflow-client"))
print("guess: both empty pictures have width, height and batch_size; the sampler has seven inputs at most, all of them its own")
for key, inputs in converted.items():
    print(f"seen:  {WORKFLOW['nodes'][int(key) - 1]['type']}: {inputs}")
assert converted["1"] == {"width": 512, "height": 768, "batch_size": 1}
assert converted["2"] == {}, "a class that is not in the client's table has no values"
assert converted["3"]["seed_control"] == "fixed", "what the page does after a run became an input of the node"
PROGRAM

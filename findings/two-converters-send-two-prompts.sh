#!/usr/bin/env bash
# finding: of two converters from the web UI's format one takes "// …" out of a prompt and chooses from {a|b}, the other sends the text as it is
# about: comfy-cli, comfy-draftsman
# guess: a text is converted into the same text, or both do what the page does when it queues
# concerns: the page cuts a prompt at "//" up to the end of the line, also within an address or a word, and ComfyUI itself knows nothing of this: a workflow that is exported, converted or filled in by a script means another picture each time
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pathspec==1.0.0 pyyaml==6.0.4 typer==0.20.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-cli==1.23.0 comfy-draftsman==0.25.3

"$python" - <<'PROGRAM'
from importlib.metadata import version

from comfy_cli.workflow_to_api import convert_ui_to_api
from comfy_draftsman.graph.model import Workflow

TEXT = "a sign that says either//or, blue sky\na {red|red} hat // for later"
# As /object_info describes the class: dynamicPrompts is what the page goes by.
CLASSES = {
    "CLIPTextEncode": {
        "input": {"required": {"text": ["STRING", {"multiline": True, "dynamicPrompts": True}], "clip": ["CLIP", {}]}},
        "input_order": {"required": ["text", "clip"]},
        "output": ["CONDITIONING"],
        "output_name": ["CONDITIONING"],
        "output_is_list": [False],
    }
}
WORKFLOW = {
    "nodes": [{"id": 1, "type": "CLIPTextEncode", "mode": 0, "inputs": [], "outputs": [], "widgets_values": [TEXT]}],
    "links": [],
    "version": 0.4,
}
seen = {
    "comfy-cli": convert_ui_to_api(WORKFLOW, CLASSES)["1"]["inputs"]["text"],
    "comfy-draftsman": Workflow.from_ui(WORKFLOW).to_api(CLASSES)["1"]["inputs"]["text"],
}
print(", ".join(f"{name} {version(name)}" for name in seen))
print(f"guess: {TEXT!r} twice")
for name, text in seen.items():
    print(f"seen:  {name}: {text!r}")
assert seen["comfy-cli"] == "a sign that says either\na red hat "
assert seen["comfy-draftsman"] == TEXT
PROGRAM

#!/usr/bin/env bash
# finding: a prompt that is JSON loses its braces, since two tools take { } without any "|" in it for a choice of one; with a colour such as "#ff8800" in it one of them refuses it, because "#" begins a comment there
# about: dynamicprompts, comfy-cli (its converter from the web UI's format), comfy-draftsman
# guess: where there is nothing to choose from the text is left as it is
# concerns: models that are asked with structured prompts ({"scene": …, "camera": {…}} and colours by their hex code): what reaches the model is no JSON any more, and a colour in plain words, "hair in #ff8800, smiling", ends its line
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check dynamicprompts==0.31.0 pathspec==1.0.0 pyyaml==6.0.4 typer==0.20.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-cli==1.23.0 comfy-draftsman==0.25.3

"$python" - <<'PROGRAM'
import json
from importlib.metadata import version

from comfy_cli.workflow_to_api import convert_ui_to_api
from comfy_draftsman.graph.model import Workflow
from dynamicprompts.generators import RandomPromptGenerator

CLASSES = {
    "CLIPTextEncode": {
        "input": {"required": {"text": ["STRING", {"multiline": True, "dynamicPrompts": True}], "clip": ["CLIP", {}]}},
        "input_order": {"required": ["text", "clip"]},
        "output": ["CONDITIONING"],
        "output_name": ["CONDITIONING"],
        "output_is_list": [False],
    }
}


def workflow(text: str) -> dict:
    node = {"id": 1, "type": "CLIPTextEncode", "mode": 0, "inputs": [], "outputs": [], "widgets_values": [text]}
    return {"nodes": [node], "links": [], "version": 0.4}


TOOLS = {
    "dynamicprompts": lambda text: RandomPromptGenerator().generate(text, 1)[0],
    "comfy-cli": lambda text: convert_ui_to_api(workflow(text), CLASSES)["1"]["inputs"]["text"],
    "comfy-draftsman": lambda text: Workflow.from_ui(workflow(text)).to_api(CLASSES)["1"]["inputs"]["text"],
}
PROMPTS = [
    json.dumps({"scene": "a cat", "camera": {"lens": "50mm"}}),
    json.dumps({"scene": "a cat", "colour": "#ff8800"}),
    "hair in #ff8800, smiling",
]


def outcome(tool: str, prompt: str) -> str:
    try:
        return TOOLS[tool](prompt)
    except Exception as error:
        return type(error).__name__


seen = {tool: [outcome(tool, prompt) for prompt in PROMPTS] for tool in TOOLS}
print("guess:", *PROMPTS, sep="\n       ")
for tool, texts in seen.items():
    print(f"seen:  {tool} {version(tool)}", *texts, sep="\n       ")
bare = '"scene": "a cat", "camera": "lens": "50mm"'
assert seen["dynamicprompts"] == [bare, "ParseException", "hair in "]
assert seen["comfy-cli"] == [bare, PROMPTS[1][1:-1], PROMPTS[2]]
assert seen["comfy-draftsman"] == PROMPTS
PROGRAM

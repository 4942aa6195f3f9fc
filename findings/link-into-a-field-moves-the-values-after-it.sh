#!/usr/bin/env bash
# finding: a workflow that this library exports for the web UI leaves out the value of a field that a link goes into, so all fields after it get their neighbour's value: a height of 480 is 2, and 2 pictures are 255
# about: comfyflow (writes it), comfyui-autograph and comfy-cli (read it)
# guess: the exported workflow makes what the library's own API format makes; the web UI keeps a place in widgets_values for a field with a link
# concerns: whoever builds a workflow in code and opens it in the page: every value is one that its field takes, so nothing is refused
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyflow==0.1.0 pathspec==1.0.0 pyyaml==6.0.4 typer==0.20.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-cli==1.23.0 comfyui-autograph==2.3.0

"$python" - <<'PROGRAM'
import json
from importlib.metadata import version
from types import SimpleNamespace

from autograph.convert import convert_workflow
from comfy_cli.workflow_to_api import convert_ui_to_api
from comfyflow import Workflow
from comfyflow.registry import SchemaRegistry


def described(output: list[str], is_output: bool = False, **inputs: list) -> dict:
    """A class as /object_info describes it."""
    return {
        "input": {"required": inputs},
        "input_order": {"required": list(inputs)},
        "output": output,
        "output_name": output,
        "output_is_list": [False] * len(output),
        "output_node": is_output,
    }


def whole(default: int, largest: int) -> list:
    return ["INT", {"default": default, "min": 0, "max": largest}]


CLASSES = {
    "PrimitiveInt": described(["INT"], value=whole(0, 2**53)),
    "EmptyImage": described(["IMAGE"], width=whole(512, 16384), height=whole(512, 16384), batch_size=whole(1, 4096), color=whole(0, 0xFFFFFF)),
    "PreviewImage": described([], True, images=["IMAGE"]),
}


def exported(is_linked: bool) -> tuple[dict, dict]:
    """The same workflow in the API's format and in the web UI's."""
    workflow = Workflow(SimpleNamespace(registry=SchemaRegistry(CLASSES)))
    width = workflow.PrimitiveInt(value=640).INT if is_linked else 640
    picture = workflow.EmptyImage(width=width, height=480, batch_size=2, color=255)
    workflow.PreviewImage(images=picture.IMAGE)
    return workflow.to_api_json(), workflow.to_ui_json()


def fields(graph: dict) -> dict:
    inputs = next(node["inputs"] for node in graph.values() if node["class_type"] == "EmptyImage")
    return {name: inputs.get(name) for name in ("width", "height", "batch_size", "color")}


def read(page: dict) -> dict[str, dict]:
    return {
        "comfyui-autograph": fields(json.loads(json.dumps(convert_workflow(page, node_info=CLASSES)))),
        "comfy-cli": fields(convert_ui_to_api(page, CLASSES)),
    }


api, page = exported(is_linked=True)
seen = read(page)
print("comfyflow", version("comfyflow"))
print(f"guess: {fields(api)}")
for name, values in seen.items():
    print(f"seen:  {name} {version(name)} reads {values}")
assert fields(api) == {"width": ["1", 0], "height": 480, "batch_size": 2, "color": 255}
assert all(values == {"width": ["1", 0], "height": 2, "batch_size": 255, "color": 0} for values in seen.values())
plain_api, plain_page = exported(is_linked=False)
assert all(values == fields(plain_api) for values in read(plain_page).values()), "without the link nothing moves"
PROGRAM

#!/usr/bin/env bash
# finding: of three converters from the web UI's format two leave the links to a muted node in, so the graph refers to a node that it does not have
# about: comfy-draftsman, comfyui-autograph, comfy-cli
# guess: a muted node is left out together with the links to it, as the page does when it queues
# concerns: people mute what they do not need, as a mask or a control image on an optional input: what runs from the page is refused by ComfyUI when a script converts it
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pathspec==1.0.0 pyyaml==6.0.4 typer==0.20.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-cli==1.23.0 comfy-draftsman==0.25.3 comfyui-autograph==2.3.0

"$python" - <<'PROGRAM'
import json
from importlib.metadata import version

from autograph.convert import convert_workflow
from comfy_cli.workflow_to_api import convert_ui_to_api
from comfy_draftsman.graph.model import Workflow

MUTED = 2  # LiteGraph's mode "never"


def described(output: list[str], is_output: bool = False, **inputs: list) -> dict:
    """A class as /object_info describes it; a mask is optional."""
    required = {name: spec for name, spec in inputs.items() if name != "mask"}
    optional = {name: spec for name, spec in inputs.items() if name == "mask"}
    return {
        "input": {"required": required, "optional": optional},
        "input_order": {"required": list(required), "optional": list(optional)},
        "output": output,
        "output_name": output,
        "output_is_list": [False] * len(output),
        "output_node": is_output,
    }


CLASSES = {
    "EmptyImage": described(["IMAGE"], width=["INT", {"default": 512}]),
    "SolidMask": described(["MASK"], width=["INT", {"default": 512}]),
    "ImageCompositeMasked": described(["IMAGE"], destination=["IMAGE"], source=["IMAGE"], mask=["MASK"]),
    "PreviewImage": described([], True, images=["IMAGE"]),
}


def node(number: int, kind: str, mode: int, values: list, links: dict[str, int], out: list[int]) -> dict:
    inputs = [{"name": name, "type": CLASSES[kind]["input"]["required"].get(name, ["MASK"])[0], "link": link} for name, link in links.items()]
    outputs = [{"name": name, "type": name, "links": out} for name in CLASSES[kind]["output"]]
    return {"id": number, "type": kind, "mode": mode, "inputs": inputs, "outputs": outputs, "widgets_values": values}


WORKFLOW = {
    "nodes": [
        node(1, "EmptyImage", 0, [64], {}, [1, 2]),
        node(2, "SolidMask", MUTED, [64], {}, [3]),
        node(3, "ImageCompositeMasked", 0, [], {"destination": 1, "source": 2, "mask": 3}, [4]),
        node(4, "PreviewImage", 0, [], {"images": 4}, []),
    ],
    "links": [[1, 1, 0, 3, 0, "IMAGE"], [2, 1, 0, 3, 1, "IMAGE"], [3, 2, 0, 3, 2, "MASK"], [4, 3, 0, 4, 0, "IMAGE"]],
    "last_node_id": 4,
    "last_link_id": 4,
    "version": 0.4,
}
converted = {
    "comfy-cli": convert_ui_to_api(WORKFLOW, CLASSES),
    "comfy-draftsman": Workflow.from_ui(WORKFLOW).to_api(CLASSES),
    "comfyui-autograph": json.loads(json.dumps(convert_workflow(WORKFLOW, node_info=CLASSES))),
}
seen = {name: ("2" in graph, graph["3"]["inputs"].get("mask")) for name, graph in converted.items()}
print(", ".join(f"{name} {version(name)}" for name in seen))
print("guess: neither node 2 nor an input mask")
for name, (is_there, link) in seen.items():
    print(f"seen:  {name}: node 2 is {'there' if is_there else 'left out'}, mask is {link}")
assert not any(is_there for is_there, _ in seen.values())
assert [link for _, link in seen.values()] == [None, ["2", 0], ["2", 0]]
PROGRAM

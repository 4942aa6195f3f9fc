#!/usr/bin/env bash
# finding: this linter calls an error what ComfyUI takes: a link into an input of several types, and the parts of an input that grows
# about: comfy-lint, comfyui-workflow-templates-json
# guess: "MESH,FILE_3D_GLB" in /object_info is met by either type, and a growing input "values" by values.a, values.b, as in ComfyUI's own workflows
# concerns: a check before each submission stops workflows that run: one in five of ComfyUI's templates has such inputs
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-lint==0.1.0
"$python" -m pip download -qqq --disable-pip-version-check --no-deps -d "$folder" comfyui-workflow-templates-json==0.1.123

"$python" - "$folder" <<'PROGRAM'
import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from comfy_lint import lint_workflow
from comfy_lint.schema import normalize

GROWS = {"input": {"required": {"value": ["FLOAT,INT,BOOLEAN", {}]}}, "names": ["a", "b", "c"], "min": 1}
# As /object_info has them, without what a linter does not read.
CLASSES = {
    "VoxelToMesh": {"input": {"required": {}}, "output": ["MESH"]},
    "SaveGLB": {"input": {"required": {"mesh": ["MESH,FILE_3D_GLB,FILE_3D_OBJ", {}]}}, "output": []},
    "PrimitiveInt": {"input": {"required": {"value": ["INT", {}]}}, "output": ["INT"]},
    "ComfyMathExpression": {
        "input": {"required": {"expression": ["STRING", {}], "values": ["COMFY_AUTOGROW_V3", {"template": GROWS}]}},
        "output": ["FLOAT", "INT"],
    },
}
WORKFLOW = {
    "1": {"class_type": "VoxelToMesh", "inputs": {}},
    "2": {"class_type": "SaveGLB", "inputs": {"mesh": ["1", 0]}},
    "3": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    "4": {"class_type": "ComfyMathExpression", "inputs": {"expression": "a * 2", "values.a": ["3", 0]}},
}
(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    documents = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
workflows = [each for each in documents if isinstance(each, dict) and isinstance(each.get("nodes"), list)]


def is_of_several(workflow: dict) -> bool:
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    types = [str(slot.get("type")) for graph in graphs for node in graph["nodes"] for slot in node.get("inputs") or []]
    return any("," in each for each in types)


told = [(found.severity, found.rule, found.field) for found in lint_workflow(WORKFLOW, normalize(CLASSES))]
affected = sum(map(is_of_several, workflows))
print("comfy-lint", version("comfy-lint"), wheel.name)
print("guess: nothing to tell")
print(f"seen:  {told}")
print(f"seen:  {affected} of {len(workflows)} templates have inputs of several types")
assert ("error", "type-mismatch", "mesh") in told
assert ("error", "missing-required", "values") in told
assert ("warning", "extraneous-input", "values.a") in told
assert affected > 100
PROGRAM

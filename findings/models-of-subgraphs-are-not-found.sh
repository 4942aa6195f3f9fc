#!/usr/bin/env bash
# finding: this resolver finds 600 of the 999 models that ComfyUI's workflow templates need, and none at all for 99 of 261 templates, since it does not look into subgraphs
# about: comfy-resolve, comfyui-workflow-templates-json
# guess: a tool that lists "every model a workflow needs" lists those of the nodes within subgraphs
# concerns: whoever prepares a machine for a workflow: "0 models" reads as if nothing were missing; the nodes of a subgraph stand under definitions, not under nodes
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-resolve==0.1.0
"$python" -m pip download -qqq --disable-pip-version-check --no-deps -d "$folder" comfyui-workflow-templates-json==0.1.123

"$python" - "$folder" <<'PROGRAM'
import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from comfy_resolve.parser import extract_assets

(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    documents = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
workflows = [each for each in documents if isinstance(each, dict) and isinstance(each.get("nodes"), list)]


def models(graph: dict) -> set[str]:
    """The names that the templates themselves tell, node by node."""
    return {
        model["name"] for node in graph["nodes"] for model in (node.get("properties") or {}).get("models") or []
    }


needed: list[tuple[set[str], set[str], set[str]]] = []
for workflow in workflows:
    outer = models(workflow)
    inner = set().union(*map(models, workflow.get("definitions", {}).get("subgraphs", [])))
    if outer | inner:
        needed.append((outer, inner, {asset.raw_name for asset in extract_assets(workflow)}))
total = sum(len(outer | inner) for outer, inner, _ in needed)
found = sum(len((outer | inner) & listed) for outer, inner, listed in needed)
nothing = sum(not (outer | inner) & listed for outer, inner, listed in needed)
missing_outside = sum(len(outer - listed) for outer, _, listed in needed)
print("comfy-resolve", version("comfy-resolve"), wheel.name)
print(f"guess: {total} models of {len(needed)} templates")
print(f"seen:  {found}; {nothing} templates of which it finds none; {missing_outside} that it misses outside subgraphs")
assert (len(needed), total, found, nothing) == (261, 999, 600, 99)
PROGRAM

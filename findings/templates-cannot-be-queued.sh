#!/usr/bin/env bash
# finding: none of the workflow templates that come with ComfyUI can be sent to POST /prompt, and a third of them hold subgraphs, which only the page takes apart
# about: comfyui-workflow-templates-json
# guess: a workflow template is a workflow: a script can fill it in and queue it
# concerns: all are in the web UI's format; many hold subgraphs, nodes whose type is a UUID that no server knows
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip download -qqq --disable-pip-version-check --no-deps -d "$folder" comfyui-workflow-templates-json==0.1.50

"$python" - "$folder" <<'PROGRAM'
import json
import re
import sys
import zipfile
from pathlib import Path

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    documents = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")]
objects = [document for document in documents if isinstance(document, dict) and document]
of_the_page = [document for document in objects if isinstance(document.get("nodes"), list)]
of_the_api = [
    document
    for document in objects
    if all(isinstance(node, dict) and "class_type" in node for node in document.values())
]
with_subgraphs = [
    document for document in of_the_page if any(UUID.fullmatch(node["type"]) for node in document["nodes"])
]
print(wheel.name)
print("guess: API format, nodes by id with class_type")
print(f"seen:  {len(of_the_page)} in the page's format, {len(of_the_api)} in the API format, {len(with_subgraphs)} with subgraphs")
assert len(of_the_page) > 400
assert of_the_api == []
assert len(with_subgraphs) > len(of_the_page) / 4
PROGRAM

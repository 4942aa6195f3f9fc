#!/usr/bin/env bash
# finding: ComfyUI's workflow templates name their models by folder and file name, give one in seventy a hash, and fetch the same name from up to six repositories
# about: comfyui-workflow-templates-json
# guess: what a template downloads is told by a hash or a revision, and one name in one folder is one file
# concerns: whoever fetches the models of templates ahead of time: the first template's file answers for all of that name, and none of the addresses stays the same file
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-workflow-templates-json==0.1.123

"$python" - <<'PROGRAM'
import json
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import files, version
from urllib.parse import urlsplit


def models_in(value: object) -> Iterator[dict[str, str]]:
    """Every entry of a list `models`, which a node of a template has among its properties."""
    if isinstance(value, dict):
        yield from (model for model in value.get("models") or () if isinstance(model, dict) and "url" in model)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from models_in(inner)


package = "comfyui-workflow-templates-json"
templates = [path for path in files(package) or () if path.suffix == ".json"]
models = [model for path in templates for model in models_in(json.loads(path.read_text(encoding="utf-8")))]
repositories: dict[tuple[str, str], set[str]] = defaultdict(set)
revisions, renamed = set(), set()
for model in models:
    owner, name, _, revision, *path = urlsplit(model["url"]).path.strip("/").split("/")
    repositories[model["directory"], model["name"]].add(f"{owner}/{name}")
    revisions.add(revision)
    if path[-1] != model["name"]:
        renamed.add((path[-1], model["name"]))
hashed = sum("hash" in model for model in models)
shared = {key: places for key, places in repositories.items() if len(places) > 1}
print(package, version(package))
print("guess: a hash or a fixed revision for each, and one repository for each name")
print(f"seen:  {len(models)} downloads in {len(templates)} files, {hashed} with a hash; revisions: {revisions}")
print(f"seen:  {len(shared)} of {len(repositories)} names come from several repositories, {'/'.join(max(shared, key=lambda key: len(shared[key])))}")
print(f"seen:  from {max(map(len, shared.values()))}; {sorted(renamed)} are saved under another file's name")
assert revisions == {"main"}
assert hashed * 50 < len(models)
assert max(map(len, shared.values())) == 6
assert ("moss_image_base_int8_convrot.safetensors", "moss_image_sft_int8_convrot.safetensors") in renamed
PROGRAM

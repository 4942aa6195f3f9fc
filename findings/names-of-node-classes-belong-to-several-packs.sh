#!/usr/bin/env bash
# finding: by ComfyUI-Manager's own map one class name in thirty is that of several node packs, one of them of sixteen, and some packs claim a hundred classes of others by a pattern
# about: comfyui-manager (extension-node-map.json)
# guess: a class_type tells which pack a workflow needs
# concerns: whoever installs what a workflow lacks, or permits node classes by name: the same name runs other code on another machine, and the pattern "Inspire$" names two packs for each node of one
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip download -qqq --disable-pip-version-check --no-deps -d "$folder" comfyui-manager==4.3

"$python" - "$folder" <<'PROGRAM'
import json
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    packs = json.loads(archive.read("comfyui_manager/extension-node-map.json"))
owners: dict[str, set[str]] = defaultdict(set)
for address, (names, _) in packs.items():
    for name in names:
        owners[name].add(address)
of_several = {name: len(those) for name, those in owners.items() if len(those) > 1}
claimed = {}
for address, (_, about) in packs.items():
    if pattern := about.get("nodename_pattern"):
        strangers = [name for name, those in owners.items() if address not in those and re.search(pattern, name)]
        claimed[address.rsplit("/", 1)[-1], pattern] = len(strangers)
most = max(of_several, key=of_several.__getitem__)
widest = sorted(claimed.items(), key=lambda pair: -pair[1])[:2]
print(wheel.name)
print(f"guess: each of {len(owners)} class names belongs to one of {len(packs)} packs")
print(f"seen:  {len(of_several)} belong to several, {most} to {of_several[most]}")
print(f"seen:  patterns that fit classes of other packs: {widest}")
assert len(owners) > 25_000
assert len(of_several) > 800
assert of_several[most] == 16
assert widest[0] == (("comfyui-connection-helper", "Inspire$"), 103)
PROGRAM

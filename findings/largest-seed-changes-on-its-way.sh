#!/usr/bin/env bash
# finding: the largest seed that ComfyUI offers becomes a larger number in JavaScript, and a float in Python afterwards
# about: orjson, mini-racer (V8)
# guess: a seed within the bounds that /object_info tells can be saved and sent by any client
# concerns: web pages and Node clients parse /object_info and workflows with JSON.parse; what they write back is over the maximum of the input
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check orjson==3.13.0 mini-racer==0.12.4

"$python" - <<'PROGRAM'
import json
from importlib.metadata import version

import orjson
from py_mini_racer import MiniRacer

LARGEST = 0xFFFFFFFFFFFFFFFF  # "max" of KSampler.seed in /object_info
sent = MiniRacer().eval(f"JSON.stringify(JSON.parse('{{\"seed\": {LARGEST}}}'))")
exact, read = json.loads(sent)["seed"], orjson.loads(sent)["seed"]
print("orjson", version("orjson"), "mini-racer", version("mini-racer"))
print(f"guess: {LARGEST}, an int everywhere")
print(f"seen:  JavaScript writes {sent}; json reads {exact!r}, orjson reads {read!r}")
assert exact > LARGEST, "what comes back is over the maximum"
assert isinstance(exact, int)
assert isinstance(read, float), "orjson's integers have 64 bits; a larger one is a float, with no error"
assert orjson.loads(str(LARGEST)) == LARGEST, "the seed itself is read exactly"
PROGRAM

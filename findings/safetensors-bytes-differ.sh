#!/usr/bin/env bash
# finding: the same tensors with the same metadata are written as other bytes in each run
# about: safetensors
# guess: what is saved is a function of what is given, so a file can be known by its hash
# concerns: model files are shared, cached and deduplicated by their SHA-256; metadata alone makes equal models different
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check safetensors==0.6.2 numpy==2.2.6

"$python" - <<'PROGRAM'
import hashlib
import subprocess
import sys
from importlib.metadata import version

SAVE = """
import numpy, sys
from safetensors.numpy import save
metadata = {f"ss_key_{number}": str(number) for number in range(int(sys.argv[1]))}
sys.stdout.buffer.write(save({"a": numpy.zeros(4, numpy.float32)}, metadata=metadata))
"""


def save(keys: int) -> str:
    done = subprocess.run([sys.executable, "-c", SAVE, str(keys)], capture_output=True, check=True)
    return hashlib.sha256(done.stdout).hexdigest()[:12]


plain = {save(1) for _ in range(5)}
described = {save(8) for _ in range(5)}
print("safetensors", version("safetensors"))
print("guess: five runs write one file, with one key of metadata and with eight")
print(f"seen:  one key: {sorted(plain)}; eight keys: {sorted(described)}")
assert len(plain) == 1, "one key has one order"
assert len(described) > 1, "the header lists the metadata in another order in each run"
PROGRAM

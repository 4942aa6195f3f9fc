#!/usr/bin/env bash
# finding: a JPEG that Pillow saves into a file which can take only a part of it is cut off, and nothing says so
# about: Pillow, Image.save(); encode_to_file() of its encoders
# guess: save() raises OSError, as it does for a PNG
# concerns: whoever saves JPEGs where a disk fills up, or a quota or `ulimit -f` ends: half a picture that looks saved
# needs: python3 with venv, a system with resource limits
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow==13.0.0

cd "$folder"
"$python" - <<'PROGRAM'
import os
import resource
from importlib.metadata import version

from PIL import Image

ROOM = 1000  # bytes, of a file of this process
picture = Image.effect_noise((128, 128), 80).convert("RGB")
resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
seen = {}
for name in ("a.png", "a.jpg"):
    try:
        picture.save(name)
    except OSError as error:
        seen[name] = f"OSError: {error.strerror}"
    else:
        seen[name] = f"saved, {os.path.getsize(name)} bytes"
print("pillow", version("pillow"))
print("guess: OSError for both")
print("seen: ", seen)
assert seen["a.png"].startswith("OSError")
assert seen["a.jpg"] == f"saved, {ROOM} bytes"
PROGRAM

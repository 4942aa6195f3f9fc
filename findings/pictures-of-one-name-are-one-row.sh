#!/usr/bin/env bash
# finding: this index of ComfyUI's pictures keeps one row for all that have the same file name, in whatever folders, and says that it indexed each
# about: renderdb
# guess: two files are two rows; the count that is printed is the count of rows
# concerns: ComfyUI numbers the pictures of every subfolder from 00001 on, so a filename_prefix per project makes the same names again and again
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check renderdb==0.1.0 pillow==13.0.0

"$python" - "$folder/output" <<'PROGRAM'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import renderdb
from PIL import Image
from PIL.PngImagePlugin import PngInfo

output = Path(sys.argv[1])


def save(project: str, seed: int) -> None:
    """A picture with its workflow, as SaveImage names it for the prefix PROJECT/ComfyUI."""
    text = PngInfo()
    text.add_text("prompt", json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": seed, "steps": 20}}}))
    (output / project).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(output / project / "ComfyUI_00001_.png", pnginfo=text)


save("cats", 111)
save("dogs", 222)
told = renderdb.build(output, output / "renders.db")
rows = [(row["seed"], Path(row["path"]).parent.name) for row in renderdb.connect(output / "renders.db").execute("SELECT * FROM render")]
print("renderdb", version("renderdb"))
print("guess: (indexed, skipped) is (2, 0), and both seeds can be found")
print(f"seen:  (indexed, skipped) is {told}, and the rows are {rows}")
assert told == (2, 0)
assert rows == [(222, "dogs")]
PROGRAM

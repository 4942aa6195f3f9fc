#!/usr/bin/env bash
# finding: two thirds of the web UI's package are source maps, and all scripts but one do not name theirs
# about: comfyui-frontend-package
# guess: a package that is installed to be served holds what is served
# concerns: who copies, scans, caches or compresses the static folder as a whole handles 53 MiB that no page asks for
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip download -qqq --disable-pip-version-check --no-deps -d "$folder" comfyui-frontend-package==1.49.6

"$python" - "$folder" <<'PROGRAM'
import sys
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    files = archive.infolist()
    scripts = [file for file in files if file.filename.endswith(".js")]
    maps = [file for file in files if file.filename.endswith(".map")]
    naming = [file.filename for file in scripts if b"sourceMappingURL=" in archive.read(file)]
total, of_maps = sum(file.file_size for file in files), sum(file.file_size for file in maps)
print(wheel.name)
print("guess: scripts, styles, pictures")
print(f"seen:  {len(maps)} maps, {of_maps / 2**20:.0f} of {total / 2**20:.0f} MiB; scripts that name a map: {len(naming)} of {len(scripts)}")
assert len(maps) > 300
assert 0.6 < of_maps / total < 0.7
assert len(naming) <= 1
PROGRAM

#!/usr/bin/env bash
# finding: of a picture that gets brighter towards its right or lower edge the npm package blurhash makes a hash without contrast, and of its mirror image one with all of it; two packages for Python make both alike
# about: blurhash (npm, encode), blurhash (PyPI), blurhash-rs
# guess: the hash of a mirrored picture is mirrored; the factor that its second character holds is the largest amount of any component, whatever its sign
# concerns: placeholders of a gallery that Node makes: dark to bright is grey all over, and the hashes of one picture differ between the two halves of a service; the encoder looks for the largest value without taking amounts, and such pictures have negative ones
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check blurhash==1.1.5 blurhash-rs==2.0.0 pillow==13.0.0
npm install --silent --prefix "$folder" blurhash@2.0.5

cat > "$folder/encode.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import { encode } from "blurhash";

const rows = JSON.parse(readFileSync(0, "utf8"));
const pixels = rows.flat().flatMap(([red, green, blue]) => [red, green, blue, 255]);
console.log(encode(Uint8ClampedArray.from(pixels), rows[0].length, rows.length, 4, 3));
PROGRAM

cat > "$folder/encode.py" <<'PROGRAM'
import json
import subprocess
import sys
from importlib.metadata import version

import blurhash
import blurhash_rs

WIDTH, HEIGHT = 64, 48
BRIGHTER = [[[x * 4, x * 4, x * 4] for x in range(WIDTH)] for _ in range(HEIGHT)]
PICTURES = {"dark to bright": BRIGHTER, "bright to dark": [row[::-1] for row in BRIGHTER]}


def by_npm(rows: list) -> str:
    command = ["node", f"{sys.argv[1]}/encode.mjs"]
    return subprocess.run(command, input=json.dumps(rows), check=True, capture_output=True, text=True).stdout.strip()


def by_rust(rows: list) -> str:
    return blurhash_rs.encode_rgb(bytes(value for row in rows for pixel in row for value in pixel), WIDTH, HEIGHT, 4, 3)


def ends(text: str) -> tuple[int, int]:
    """What one and the same decoder makes of a hash: the grey at the left and at the right edge."""
    row = blurhash.decode(text, 32, 32)[16]
    return round(row[0][0]), round(row[-1][0])


ENCODERS = {
    f"blurhash (PyPI) {version('blurhash')}": lambda rows: blurhash.encode(rows, 4, 3),
    f"blurhash-rs {version('blurhash-rs')}": by_rust,
    "blurhash (npm) 2.0.5": by_npm,
}
print("guess: the same contrast both ways, by all three")
seen = {}
for name, encode in ENCODERS.items():
    for what, rows in PICTURES.items():
        seen[name.split(" 1")[0].split(" 2")[0], what] = left, right = ends(encode(rows))
        print(f"seen:  {name}: {what}: {left} at the left, {right} at the right ({encode(rows)})")
contrast = {case: abs(right - left) for case, (left, right) in seen.items()}
assert contrast.pop(("blurhash (npm)", "dark to bright")) < 60
assert min(contrast.values()) > 180
PROGRAM

"$python" "$folder/encode.py" "$folder"

#!/usr/bin/env bash
# finding: image-size takes one pixel off the width of a HEIC that is cropped in its height only, and leaves the height uncropped: 1000 x 751 is 999 x 752; the number that it takes off is the denominator of the crop's width
# about: image-size (npm); pillow-heif writes the files, sharp and Pillow read them
# guess: a box "clap" has four fractions, width and height of what is shown first (ISO/IEC 14496-12), so its first and third number are the size
# concerns: every HEIC with an odd side, since it is encoded with even ones and cropped: a page lays a picture out by a size that it does not have, and a check "as large as it was ordered" fails; a HEIC with even sides has no such box
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow==13.0.0 pillow-heif==1.8.1
npm install --silent --prefix "$folder" image-size@2.1.0 sharp@0.35.5

cat > "$folder/size.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import { imageSize } from "image-size";
import sharp from "sharp";

const sizes = await Promise.all(
  process.argv.slice(2).map(async (path) => {
    const data = readFileSync(path);
    const [told, shown] = [imageSize(data), await sharp(data).metadata()];
    return [[told.width, told.height], [shown.width, shown.height]];
  }),
);
console.log(JSON.stringify(sizes));
PROGRAM

cat > "$folder/size.py" <<'PROGRAM'
import json
import subprocess
import sys
from pathlib import Path

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
folder = Path(sys.argv[1])
SIZES = [(1000, 750), (1000, 751), (833, 1217)]
paths = [folder / f"{width}x{height}.heic" for width, height in SIZES]
for path, size in zip(paths, SIZES):
    Image.linear_gradient("L").resize(size).convert("RGB").save(path)
    with Image.open(path) as image:
        assert image.size == size
found = subprocess.run(["node", "size.mjs", *paths], cwd=folder, check=True, capture_output=True, text=True).stdout
told, shown = zip(*[[tuple(size) for size in both] for both in json.loads(found)])
print("image-size 2.1.0")
print("guess:", *SIZES)
print("seen: ", *told, "by image-size")
print("seen: ", *shown, "by sharp")
assert list(shown) == SIZES
assert list(told) == [(1000, 750), (999, 752), (833, 1218)]
PROGRAM

"$python" "$folder/size.py" "$folder"

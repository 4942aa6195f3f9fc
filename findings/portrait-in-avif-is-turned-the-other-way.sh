#!/usr/bin/env bash
# finding: probe-image-size takes the rotation of an AVIF the wrong way round, so a picture that lies on its left side is told to lie on its right one; of a JPEG and a HEIC with the same orientation it tells the right one
# about: probe-image-size (npm); Pillow and pillow-heif write the files, sharp shows them
# guess: orientation 6 for all three, since the angle of an AVIF's box "irot" counts anti-clockwise (ISO/IEC 23008-12) and three quarters that way are one quarter clockwise
# concerns: whoever turns pictures by what it tells: each portrait from a phone that was saved as AVIF stands on its head, while pictures that are upright or upside down are right, and so are width and height
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow==13.0.0 pillow-heif==1.8.1
npm install --silent --prefix "$folder" probe-image-size@7.5.0 sharp@0.35.5

cat > "$folder/write.py" <<'PROGRAM'
import sys
from pathlib import Path

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
folder = Path(sys.argv[1])
ORIENTATION = 0x0112
for orientation in (1, 3, 6, 8):
    picture = Image.new("RGB", (128, 64), "blue")
    picture.paste("red", (0, 0, 64, 64))  # the left half, as it is stored
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for suffix in ("jpg", "heic", "avif"):
        picture.save(folder / f"{orientation}.{suffix}", exif=exif)
    with Image.open(folder / f"{orientation}.avif") as avif:
        assert avif.getexif().get(ORIENTATION, 1) == orientation
PROGRAM
"$python" "$folder/write.py" "$folder"

cat > "$folder/probe.mjs" <<'PROGRAM'
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import probe from "probe-image-size";
import sharp from "sharp";

const orientations = [1, 3, 6, 8];
const read = (orientation, suffix) => readFileSync(join(process.argv[2], `${orientation}.${suffix}`));
const told = (suffix) => orientations.map((orientation) => probe.sync(read(orientation, suffix)).orientation ?? 1);

/** Which end of the picture is red when it is shown. */
async function red(orientation, suffix) {
  const { data, info } = await sharp(read(orientation, suffix)).rotate().removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const [first, last] = [data[0] > 128, data[data.length - info.channels] > 128];
  assert.notStrictEqual(first, last);
  return `${info.width}x${info.height}, ${first ? "red first" : "red last"}`;
}

console.log("probe-image-size 7.5.0");
console.log(`guess: ${orientations} for each`);
for (const suffix of ["jpg", "heic", "avif"]) console.log(`seen:  ${suffix}: ${told(suffix)}`);
for (const orientation of orientations) assert.strictEqual(await red(orientation, "avif"), await red(orientation, "jpg"));
console.log("seen:  shown by sharp, each AVIF is as the JPEG of its orientation");
assert.deepStrictEqual(told("jpg"), orientations);
assert.deepStrictEqual(told("heic"), orientations);
assert.deepStrictEqual(told("avif"), [1, 3, 8, 6]);
PROGRAM
node "$folder/probe.mjs" "$folder"

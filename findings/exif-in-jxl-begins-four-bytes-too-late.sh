#!/usr/bin/env bash
# finding: the EXIF that Pillow's plugin for JPEG XL writes lacks the four bytes at its beginning, so ExifReader finds no tag in the picture; with the four bytes put in, both read it
# about: pillow-jxl-plugin (Pillow), exifreader (npm)
# guess: a box "Exif" begins with the offset of the TIFF header, four bytes (ISO/IEC 18181-2), as in HEIF and AVIF
# concerns: the workflow of a picture that was made smaller by saving it as JXL, and its orientation: the plugin itself guesses whether the four bytes are there, so that a program which reads back what it wrote finds all in order
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow==13.0.0 pillow-jxl-plugin==1.3.8
npm install --silent --prefix "$folder" exifreader@4.46.0

cat > "$folder/read.mjs" <<'PROGRAM'
import { readFileSync } from "node:fs";
import ExifReader from "exifreader";

console.log(ExifReader.load(readFileSync(process.argv[2])).Make?.description ?? "nothing");
PROGRAM

cat > "$folder/exif.py" <<'PROGRAM'
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pillow_jxl  # noqa: F401 - registers the format
from PIL import Image

folder = Path(sys.argv[1])
MAKE = 0x010F
WORKFLOW = 'workflow:{"nodes": []}'


def with_offset(data: bytes) -> bytes:
    """The file with the four bytes of offset 0 at the beginning of its box "Exif"."""
    written, at = b"", 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        box = data[at : at + length] if length else data[at:]
        at += len(box)
        written += struct.pack(">I4s", length + 4, kind) + bytes(4) + box[8:] if kind == b"Exif" else box
    return written


def by_exifreader(path: Path) -> str:
    return subprocess.run(["node", "read.mjs", path], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def by_pillow(path: Path) -> str:
    with Image.open(path) as image:
        return image.getexif().get(MAKE, "nothing")


exif = Image.Exif()
exif[MAKE] = WORKFLOW
saved, corrected = folder / "saved.jxl", folder / "corrected.jxl"
Image.new("RGB", (32, 16)).save(saved, exif=exif.tobytes())
corrected.write_bytes(with_offset(saved.read_bytes()))
print(f"pillow-jxl-plugin {version('pillow-jxl-plugin')}, exifreader 4.46.0")
print(f"guess: {WORKFLOW} from both files by both")
for what, path in {"as it was saved": saved, "with the four bytes": corrected}.items():
    print(f"seen:  {what}: {by_pillow(path)} by Pillow, {by_exifreader(path)} by ExifReader")
assert [by_pillow(saved), by_pillow(corrected), by_exifreader(corrected)] == [WORKFLOW] * 3
assert by_exifreader(saved) == "nothing"
assert b"ExifMM\0*" in saved.read_bytes()
PROGRAM

"$python" "$folder/exif.py" "$folder"

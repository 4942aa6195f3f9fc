#!/usr/bin/env bash
# finding: Pillow begins the EXIF of an animated WebP with "Exif" and that of a still one without it, and ExifRead finds only the first
# about: Pillow, ExifRead
# guess: the same picture with the same EXIF has the same tags, whether it moves or not
# concerns: ComfyUI keeps prompt and workflow of a WebP in the EXIF tags Model and Make: a gallery that reads them with ExifRead shows those of animations, and nothing for stills
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow==13.0.0 exifread==3.5.1

"$python" - <<'PROGRAM'
import io
import struct
from importlib.metadata import version

import exifread
from PIL import Image

PROMPT = 'prompt:{"1": {"class_type": "EmptyImage", "inputs": {}}}'


def exif_of(data: bytes) -> bytes:
    """The content of the EXIF chunk; a chunk of odd length is followed by one more byte."""
    at = 12
    while data[at : at + 4] != b"EXIF":
        length = struct.unpack_from("<I", data, at + 4)[0]
        at += 8 + length + length % 2
    return data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]


def seen_in(**how: object) -> tuple[bytes, str | None, str]:
    """The first bytes of the EXIF, and Model for Pillow and for ExifRead."""
    picture = Image.new("RGB", (64, 64), "navy")
    exif = picture.getexif()
    exif[0x0110] = PROMPT
    file = io.BytesIO()
    picture.save(file, "WEBP", exif=exif, **how)
    found = exifread.process_file(io.BytesIO(file.getvalue())).get("Image Model")
    return exif_of(file.getvalue())[:6], found and str(found.values), Image.open(file).getexif()[0x0110]


still = seen_in()
moving = seen_in(save_all=True, append_images=[Image.new("RGB", (64, 64), "gold")], duration=100)
print("pillow", version("pillow"), "exifread", version("exifread"))
print(f"guess: both begin alike, and both readers find {PROMPT!r} in both")
for name, (start, by_exifread, by_pillow) in (("still", still), ("moving", moving)):
    print(f"seen:  {name}: begins with {start!r}, Pillow finds {by_pillow[:9]!r}…, ExifRead {(by_exifread or '')[:9]!r}")
assert still[0] == b"MM\0*\0\0", "the first bytes of a TIFF file"
assert moving[0] == b"Exif\0\0"
assert still[2] == moving[2] == PROMPT
assert moving[1] == PROMPT
assert still[1] is None, "ExifRead passes over six bytes, which here are the beginning of the content"
PROGRAM

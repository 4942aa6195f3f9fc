#!/usr/bin/env bash
# finding: a JPEG that is opened, painted over or made smaller, and saved as JPEG XL is the picture of the file as it was; with lossless_jpeg=True no warning is given
# about: pillow-jxl-plugin (Pillow)
# guess: save() writes what the image holds, as it does for every other format; lossless_jpeg is for a JPEG that nobody has touched
# concerns: thumbnails of the full size, and areas that were blackened before a picture went out and are there again; the plugin looks whether the image came from a JPEG file, not whether it still is that file
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pillow-jxl-plugin==1.3.8 pillow==13.0.0

"$python" - "$folder" <<'PROGRAM'
import io
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pillow_jxl  # noqa: F401  registers the format
from PIL import Image

BLUE, BLACK = (0, 0, 255), (0, 0, 0)
path = Path(sys.argv[1]) / "blue.jpg"
Image.new("RGB", (64, 32), BLUE).save(path)


def saved(format: str, **options: object) -> tuple[str, tuple[int, int], int]:
    """The colour and the size that are read again after painting and shrinking, and the number of warnings."""
    with Image.open(path) as picture, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        picture.paste(BLACK, (0, 0, *picture.size))
        picture.thumbnail((16, 16))
        file = io.BytesIO()
        picture.save(file, format, **options)
    with Image.open(file) as again:
        red_green_blue = again.convert("RGB").getpixel((4, 4))
        return "blue" if red_green_blue[2] > 200 else "black", again.size, len(told)


print("pillow-jxl-plugin", version("pillow-jxl-plugin"), "Pillow", version("pillow"))
print("guess: ('black', (16, 8), 0) in each case")
seen = {
    "WEBP": saved("WEBP"),
    "JXL, lossless_jpeg=False": saved("JXL", lossless_jpeg=False),
    "JXL": saved("JXL"),
    "JXL, quality=50": saved("JXL", quality=50),
    "JXL, lossless_jpeg=True": saved("JXL", lossless_jpeg=True),
}
for name, result in seen.items():
    print(f"seen:  {name}: {result}")
assert seen["WEBP"] == seen["JXL, lossless_jpeg=False"] == ("black", (16, 8), 0)
assert seen["JXL"] == seen["JXL, quality=50"] == ("blue", (64, 32), 1), "the warning speaks of JPEG reconstruction"
assert seen["JXL, lossless_jpeg=True"] == ("blue", (64, 32), 0)
PROGRAM

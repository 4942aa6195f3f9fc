#!/usr/bin/env bash
# finding: the channels of a picture that are given to OpenEXR as its planes, picture[..., 0] and so on, are written as other pixels, and nothing says so
# about: openexr (Python), numpy
# guess: the pixels that numpy shows, or an error: the module refuses other types of number, and its description has "one array per channel"
# concerns: whoever writes a picture or its alpha and depth beside each other: the strides of an array are not looked at, only its shape and where it begins
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check openexr==3.5.3 numpy==2.4.6

"$python" - "$folder" <<'PROGRAM'
import sys
from importlib.metadata import version

import numpy
import OpenEXR

path = f"{sys.argv[1]}/written.exr"
HEADER = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
PICTURE = numpy.arange(2 * 3 * 3, dtype=numpy.float32).reshape(2, 3, 3)


def read_again(channels: dict[str, numpy.ndarray]) -> dict[str, list]:
    with OpenEXR.File(dict(HEADER), dict(channels)) as file:
        file.write(path)
    with OpenEXR.File(path, separate_channels=True) as file:
        return {name: file.channels()[name].pixels.tolist() for name in "RGB"}


planes = {name: PICTURE[..., at] for at, name in enumerate("RGB")}
guess = {name: plane.tolist() for name, plane in planes.items()}
seen = {
    "the planes": read_again(planes),
    "copies of the planes": read_again({name: plane.copy() for name, plane in planes.items()}),
    "the picture": read_again({"RGB": PICTURE}),
    "its transposed, transposed": read_again({"RGB": PICTURE.transpose(1, 0, 2).copy().transpose(1, 0, 2)}),
}
print("openexr", version("openexr"), "numpy", version("numpy"))
print(f"guess: {guess}")
for name, pixels in seen.items():
    print(f"seen:  {name}: {pixels}")
assert seen["copies of the planes"] == seen["the picture"] == guess
assert seen["the planes"]["R"] == [[0, 1, 2], [3, 4, 5]], "what lies behind the first value of the plane, in memory's order"
assert seen["the planes"] != guess
assert seen["its transposed, transposed"] != guess
PROGRAM

#!/usr/bin/env bash
# finding: a whole number over 31 bits that is written as an attribute of an EXR file is another one when it is read: 2**32 + 7 is 7, and the largest of 63 bits is -1
# about: openexr (Python)
# guess: an error, as there is for a type that the format does not have, or a text; the format's int has 32 bits
# concerns: the seed of a picture kept in its file: ComfyUI's page draws seeds of up to 50 bits, so that nearly each of them is replaced, and so is a time in milliseconds
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


def read_again(value: object) -> object:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "seed": value}
    with OpenEXR.File(header, {"Y": numpy.zeros((2, 2), numpy.float32)}) as file:
        file.write(path)
    with OpenEXR.File(path) as file:
        return file.header()["seed"]


VALUES = (7, 2**31 - 1, 2**31, 2**32 + 7, 2**63 - 1)
seen = [read_again(value) for value in VALUES]
print("openexr", version("openexr"))
print(f"guess: {list(VALUES)}, or an error")
print(f"seen:  {seen}")
assert seen == [7, 2**31 - 1, -(2**31), 7, -1]
assert read_again(str(2**63 - 1)) == str(2**63 - 1), "a text keeps it"
try:
    read_again({"a": 1})
except RuntimeError as error:
    assert "unrecognized type" in str(error)
else:
    raise AssertionError("a value that the format has no type for is refused")
PROGRAM

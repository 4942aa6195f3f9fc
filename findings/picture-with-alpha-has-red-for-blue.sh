#!/usr/bin/env bash
# finding: an array of a picture with alpha that is given to this client reaches ComfyUI with red and blue exchanged; without alpha, or as a Pillow image, it is sent as it is
# about: comfy-uiapi (OpenCV, numpy)
# guess: the same colours in each case: the client's arrays are RGB by its description, and it turns them for OpenCV
# concerns: whoever adds a mask or a cut-out to a picture that was right before: the shape is right, so that only the eye finds it
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6 pillow==13.0.0 aiofiles==25.1.0 httpx==0.28.1 websockets==17.4
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfy-uiapi==0.1.0

"$python" - <<'PROGRAM'
import asyncio
import io
from importlib.metadata import version

import numpy
from comfy_uiapi import ComfyClient
from PIL import Image

RED, ALPHA = (255, 0, 0), 255
sent: list[bytes] = []


class Noting(ComfyClient):
    """Notes the file that the client would post."""

    async def _make_request(self, method: str, url: str, data=None, files=None, **options: object) -> dict:
        sent.append(files["image"][1].read())
        return {"name": "image.png", "subfolder": "", "type": "input"}


def colour(picture: object) -> tuple[int, ...]:
    asyncio.run(Noting("127.0.0.1:8188").upload_image(picture))
    with Image.open(io.BytesIO(sent[-1])) as image:
        return image.convert("RGB").getpixel((0, 0))


seen = {
    "array without alpha": colour(numpy.full((4, 4, 3), RED, numpy.uint8)),
    "array with alpha": colour(numpy.full((4, 4, 4), (*RED, ALPHA), numpy.uint8)),
    "Pillow image with alpha": colour(Image.new("RGBA", (4, 4), (*RED, ALPHA))),
}
print("comfy-uiapi", version("comfy-uiapi"), "OpenCV", version("opencv-python-headless"))
print(f"guess: {RED} in each case")
for name, pixel in seen.items():
    print(f"seen:  {name}: {pixel}")
assert seen["array without alpha"] == seen["Pillow image with alpha"] == RED
assert seen["array with alpha"] == RED[::-1]
PROGRAM

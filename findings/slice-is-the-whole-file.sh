#!/usr/bin/env bash
# finding: when a server answers a range with the whole file, the Comfy SDK returns the whole file for the slice that was asked for
# about: comfy-sdk, HTTP ranges
# guess: to_bytes(range=(4, 7)) is four bytes, or an error
# concerns: a server may ignore Range (RFC 9110, 14.2), as a proxy that compresses, or changes the file on its way, does: whoever joins slices into a file gets it several times over
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-sdk==0.5.0 httpx==0.28.1

"$python" - <<'PROGRAM'
from importlib.metadata import version

import httpx
from comfy_low.models import Output as Model
from comfy_low.transport import ComfyLow
from comfy_sdk import Output

FILE = b"0123456789"
asked = []


def answer(request: httpx.Request) -> httpx.Response:
    """A server without ranges."""
    asked.append(request.headers["Range"])
    return httpx.Response(200, content=FILE, headers={"Accept-Ranges": "none"})


http = httpx.Client(transport=httpx.MockTransport(answer))
model = Model(
    node_id="9",
    name="ComfyUI_00001_.png",
    type="image",
    content_type="image/png",
    size_bytes=len(FILE),
    id="a",
    hash=None,
    url="http://127.0.0.1/api/v2/assets/a/content",
    url_expires_at="2030-01-01T00:00:00Z",
)
output = Output(model, ComfyLow("http://127.0.0.1", client=http))
slices = [output.to_bytes(range=(first, first + 3)) for first in (0, 4)]
print("comfy-sdk", version("comfy-sdk"))
print(f"guess: {[FILE[0:4], FILE[4:8]]}")
print(f"seen:  {slices}; asked for {asked}")
assert asked == ["bytes=0-3", "bytes=4-7"]
assert slices == [FILE, FILE]
PROGRAM

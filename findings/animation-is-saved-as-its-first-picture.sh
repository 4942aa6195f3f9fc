#!/usr/bin/env bash
# finding: an animated WebP that this client fetched from ComfyUI is saved as a still of its first picture, because it knows the workflow that made it
# about: comfy-commander, Pillow
# guess: save() writes the bytes that came, and for a PNG perhaps the workflow besides
# concerns: SaveAnimatedWEBP and every other result that is no PNG: a JPEG or WebP is read and compressed once more, an animation stops, and ComfyUI's own metadata is gone; result.media always carries the workflow
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-commander==0.1.2 pillow==13.0.0

cd "$folder"
"$python" - <<'PROGRAM'
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from comfy_commander import ComfyUIServer, Workflow
from PIL import Image

WORKFLOW = {"9": {"class_type": "SaveAnimatedWEBP", "inputs": {}, "_meta": {"title": "Save"}}}
IMAGE = {"filename": "ComfyUI_00001_.webp", "subfolder": "", "type": "output"}
ENTRY = {"outputs": {"9": {"images": [IMAGE], "animated": [True]}}, "status": {"status_str": "success", "completed": True}}


def animation() -> bytes:
    pictures = [Image.new("RGB", (16, 16), (100 * number, 0, 0)) for number in range(3)]
    exif = pictures[0].getexif()
    exif[0x0110] = "prompt:" + json.dumps(WORKFLOW)
    file = io.BytesIO()
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], duration=100, exif=exif)
    return file.getvalue()


class ComfyUI(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps({"prompt_id": "p", "number": 1, "node_errors": {}}).encode())

    def do_GET(self) -> None:
        self.answer(made if self.path.startswith("/view") else json.dumps({"p": ENTRY}).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts: object) -> None:
        pass


made = animation()
server = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ComfyUIServer(f"http://127.0.0.1:{server.server_port}")
(output,) = client.execute(Workflow(api_json=WORKFLOW, gui_json=None)).media
output.save("saved.webp")
with Image.open(io.BytesIO(made)) as before, Image.open("saved.webp") as after:
    pictures = before.n_frames, after.n_frames
    prompts = 0x0110 in before.getexif(), 0x0110 in after.getexif()
print("comfy-commander", version("comfy-commander"), "pillow", version("pillow"))
print("guess: the file is what the server sent, three pictures with their prompt")
print(f"seen:  fetched as sent: {output.data == made}; (before, after): pictures {pictures}, prompt {prompts}")
assert output.data == made
assert pictures == (3, 1)
assert prompts == (True, False)
PROGRAM

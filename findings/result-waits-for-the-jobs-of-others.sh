#!/usr/bin/env bash
# finding: this client fetches its picture when the queue of the whole server is empty, not when its job is done, so it waits for the jobs of all others, those too that came after its own
# about: fm-comfyui-bridge, generate()
# guess: the job's entry in /history/{id} is asked for, or its id is looked for in the queue
# concerns: a server that several people or programs share: as long as any job runs or waits, nobody who uses this client gets a picture, and on a server that is never idle nobody ever does; there is no time limit
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check fm-comfyui-bridge==0.9.1

"$python" - <<'PROGRAM'
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from threading import Thread

from fm_comfyui_bridge import bridge, config
from fm_comfyui_bridge.lora_yaml import SdLoraYaml
from PIL import Image

OTHERS = 3  # looks at the queue during which a job of somebody else runs
asked: list[str] = []


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


class ComfyUI(BaseHTTPRequestHandler):
    """The own job is done at once; the job of somebody else, submitted later, is not."""

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"prompt_id": "own"}')

    def do_GET(self) -> None:
        asked.append(self.path.split("?")[0])
        if self.path.startswith("/queue"):
            running = [[2, "of somebody else", {}, {}, []]] if asked.count("/queue") <= OTHERS else []
            return self.answer(json.dumps({"queue_running": running, "queue_pending": []}).encode())
        image = {"filename": "own.png", "subfolder": "", "type": "output"}
        history = {"own": {"outputs": {config.COMFYUI_NODE_OUTPUT: {"images": [image]}}, "status": {"status_str": "success"}}}
        self.answer(picture() if self.path.startswith("/view") else json.dumps(history).encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
Thread(target=server.serve_forever, daemon=True).start()
image = bridge.generate("a cat", "", SdLoraYaml({"checkpoint": "sdxl.safetensors"}), (512, 512), server_url=f"http://127.0.0.1:{server.server_port}/")
server.shutdown()
print("fm-comfyui-bridge", version("fm-comfyui-bridge"))
print("guess: the history is asked for at once, since the own job is done")
print("seen: ", ", ".join(asked))
assert asked == ["/queue"] * (OTHERS + 1) + ["/history/own", "/view"]
assert image.size == (8, 8)
PROGRAM

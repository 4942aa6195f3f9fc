#!/usr/bin/env bash
# finding: a job that failed while it ran is an empty list for this client, even where it was told to raise errors, and a failed job with a preview before the failing node is one whose result is the preview
# about: comfyui-xy, ComfyUiClient(raise_on_error=True).process_workflow()
# guess: an exception with the node and its message, which stand in the history's entry beside the outputs: status_str "error" and the message execution_error
# concerns: a queue that marks a job as done when nothing was raised: out of memory, a missing file or an interrupt is a job without pictures; raise_on_error is about HTTP alone
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-xy==0.3.0 requests==2.32.5

"$python" - <<'PROGRAM'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from threading import Thread

from comfyui_xy import ComfyUiClient

ERROR = {"prompt_id": "job", "node_id": "3", "node_type": "KSampler", "exception_type": "RuntimeError", "exception_message": "out of memory"}
STATUS = {"status_str": "error", "completed": False, "messages": [["execution_start", {"prompt_id": "job"}], ["execution_error", ERROR]]}
PREVIEW = {"9": {"images": [{"filename": "preview.png", "subfolder": "", "type": "temp"}]}}
outputs: dict = {}


class ComfyUI(BaseHTTPRequestHandler):
    """POST /prompt, GET /history/job and GET /view of a ComfyUI whose job failed."""

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"prompt_id": "job"}')

    def do_GET(self) -> None:
        history = {"job": {"outputs": outputs, "status": STATUS}}
        self.answer(json.dumps(history).encode() if self.path.startswith("/history") else b"bytes of the preview")


server = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
Thread(target=server.serve_forever, daemon=True).start()
workflow = {"3": {"class_type": "KSampler", "inputs": {}}}
with ComfyUiClient(f"http://127.0.0.1:{server.server_port}", raise_on_error=True) as client:
    nothing = client.process_workflow(workflow)
    outputs.update(PREVIEW)
    preview = [response.filename for response in client.process_workflow(workflow)]
server.shutdown()
print("comfyui-xy", version("comfyui-xy"))
print("guess: an exception that says KSampler and 'out of memory'")
print(f"seen:  {nothing}, and with a preview before it {preview}")
assert nothing == []
assert preview == ["preview.png"]
PROGRAM

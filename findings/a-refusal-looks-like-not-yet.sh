#!/usr/bin/env bash
# finding: while this client waits for its job, a server that refuses to answer looks like a job that is not done
# about: comfy-toolkit, GET /history/{id}
# guess: wait() ends with the error as soon as the server answers 401 or 500
# concerns: whoever's key runs out, or whose server is broken, while a job runs: the program waits for its whole time limit, ten minutes
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-toolkit==0.1.0

"$python" - <<'PROGRAM'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from comfy_toolkit import ComfyClient

asked = []


class KeyHasRunOut(BaseHTTPRequestHandler):
    """Takes the job, and refuses every question after that."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"prompt_id": "p", "number": 1, "node_errors": {}})

    def do_GET(self) -> None:
        asked.append(self.path)
        self.answer(401, {"error": "the key has run out"})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), KeyHasRunOut)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ComfyClient(f"http://127.0.0.1:{server.server_port}")
prompt_id = client.submit({"1": {"class_type": "EmptyImage", "inputs": {}}})
try:
    client.wait(prompt_id, max_wait=2, poll_interval=0.2)
except Exception as error:
    told = f"{type(error).__name__}: {error}"
else:
    told = "nothing"
print("comfy-toolkit", version("comfy-toolkit"))
print("guess: one question, and an error that speaks of 401")
print(f"seen:  {len(asked)} questions in 2 s; {told}")
assert len(asked) > 3
assert "Timeout" in told
assert "401" not in told
PROGRAM

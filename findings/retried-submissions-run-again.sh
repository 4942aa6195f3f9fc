#!/usr/bin/env bash
# finding: a workflow whose answer was 504 is submitted three times more by this client, which then says that the connection failed
# about: comfy-headless, urllib3's Retry, POST /prompt
# guess: a submission that may have been taken is not sent twice; the caller is told that the answer was lost
# concerns: a server behind a proxy that gives up waiting: each try is a job of its own, and all of them run
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-headless==3.1.1 urllib3==2.5.0

"$python" - <<'PROGRAM'
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

os.environ["COMFY_HEADLESS_RETRY__BACKOFF_BASE"] = "0.1"

from comfy_headless import ComfyClient

submitted = []


class SlowBehindAProxy(BaseHTTPRequestHandler):
    """Takes every submission; what it answers comes too late for the proxy."""

    def do_POST(self) -> None:
        submitted.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(504)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *parts: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), SlowBehindAProxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
try:
    with ComfyClient(f"http://127.0.0.1:{server.server_port}") as client:
        client.queue_prompt({"1": {"class_type": "EmptyImage", "inputs": {}}})
except Exception as error:
    told = type(error).__name__
else:
    told = "nothing"
print("comfy-headless", version("comfy-headless"), "urllib3", version("urllib3"))
print("guess: one submission")
print(f"seen:  {len(submitted)} submissions, all of them equal: {len(set(submitted)) == 1}; the caller is told: {told}")
assert len(submitted) > 1
assert len(set(submitted)) == 1
PROGRAM

#!/usr/bin/env bash
# finding: this client asks /view for a job's pictures by their file names alone, so for one in a subfolder it saves whatever picture of the same name lies in the root of the output folder
# about: comfyui-workflow-generator, ComfyUIWorkflowExecutor.execute_workflow()
# guess: filename, subfolder and type of the history's entry go together to /view, since all three name the picture
# concerns: every filename_prefix with a slash ("project/cat"), and every preview: ComfyUI numbers each folder from 00001 on, so the old picture is there, and it is handed on as the result of the new job; where there is none, a printed line and an empty list
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check --no-deps comfyui-workflow-generator==0.1.0
"$python" -m pip install -qqq --disable-pip-version-check requests==2.32.5 astor==0.8.1

cat > "$folder/fetch.py" <<'PROGRAM'
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from comfyui_workflow_generator.executor import ComfyUIWorkflowExecutor

FILES = {("", "cat_00001_.png"): b"the picture of last week", ("project", "cat_00001_.png"): b"the picture of this job"}
ENTRY = {"filename": "cat_00001_.png", "subfolder": "project", "type": "output"}
asked: list[dict] = []


class ComfyUI(BaseHTTPRequestHandler):
    """The three routes that the client asks, with one job that is done."""

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
        if self.path.startswith("/view"):
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            asked.append(query)
            return self.answer(FILES[query.get("subfolder", ""), query["filename"]])
        self.answer(json.dumps({"job": {"outputs": {"9": {"images": [ENTRY]}}}} if "history" in self.path else {}).encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
Thread(target=server.serve_forever, daemon=True).start()
client = ComfyUIWorkflowExecutor(f"http://127.0.0.1:{server.server_port}")
workflow = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "project/cat", "images": ["8", 0]}}}
saved = client.execute_workflow(workflow, output_dir=f"{sys.argv[1]}/results")
server.shutdown()
contents = [Path(path).read_bytes().decode() for path in saved]
print("comfyui-workflow-generator", version("comfyui-workflow-generator"))
print(f"guess: /view is asked for {ENTRY}, and 'the picture of this job' is saved")
print(f"seen:  /view is asked for {asked[0]}, and {contents[0]!r} is saved")
assert asked == [{"filename": "cat_00001_.png"}]
assert contents == ["the picture of last week"]
PROGRAM

"$python" "$folder/fetch.py" "$folder"

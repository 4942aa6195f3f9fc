#!/usr/bin/env bash
# finding: three of four generators of API clients leave "explode: false" of a query parameter out of account, and send a list as status=pending&status=failed where the description says status=pending,failed
# about: openapi-python-client, openapi-typescript-codegen, swagger-typescript-api, oazapfts (npm)
# guess: the one form that the description has, or a word from the generator that it does not know this one
# concerns: routes that take a comma list, as GET /api/jobs?status= of ComfyUI does: a server that reads the first parameter of the name answers for one status, and nothing looks wrong
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check openapi-python-client==0.29.1
npm install --silent --prefix "$folder" esbuild@0.25.12 oazapfts@7.5.0 @oazapfts/runtime@1.2.0 openapi-typescript-codegen@0.31.0 swagger-typescript-api@13.13.0

cat > "$folder/ask.ts" <<'PROGRAM'
import * as oazapfts from "./oazapfts";
import { DefaultService, OpenAPI } from "./codegen";
import { Api } from "./swagger/Api";

const [, , which, base] = process.argv;
const status = ["pending", "failed"];
if (which === "oazapfts") await oazapfts.listJobs({ status }, { baseUrl: base });
if (which === "openapi-typescript-codegen") {
  OpenAPI.BASE = base;
  await DefaultService.listJobs(status);
}
if (which === "swagger-typescript-api") await new Api({ baseUrl: base }).jobs.listJobs({ status });
PROGRAM

cat > "$folder/compare.py" <<'PROGRAM'
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(sys.argv[1])
STATUS = {"name": "status", "in": "query", "explode": False, "schema": {"type": "array", "items": {"type": "string"}}}
ANSWER = {"200": {"description": "jobs", "content": {"application/json": {"schema": {"type": "object"}}}}}
DESCRIPTION = {
    "openapi": "3.0.3",
    "info": {"title": "jobs", "version": "1"},
    "paths": {"/jobs": {"get": {"operationId": "listJobs", "parameters": [STATUS], "responses": ANSWER}}},
}
asked: list[str] = []


class Jobs(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *parts: object) -> None:
        pass


def run(*words: object) -> None:
    path = f"{folder}/venv/bin:{folder}/node_modules/.bin:{os.environ['PATH']}"
    subprocess.run([str(word) for word in words], cwd=folder, check=True, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL)


(folder / "jobs.json").write_text(json.dumps(DESCRIPTION))
run("openapi-python-client", "generate", "--path", "jobs.json", "--output-path", "jobs_client", "--meta", "none", "--fail-on-warning")
run("oazapfts", "jobs.json", "oazapfts.ts")
run("openapi", "-i", "jobs.json", "-o", "codegen")
run("swagger-typescript-api", "generate", "-p", "jobs.json", "-o", "swagger")
run("esbuild", "ask.ts", "--bundle", "--platform=node", "--format=esm", "--packages=external", "--outfile=ask.mjs", "--log-level=error")
server = ThreadingHTTPServer(("127.0.0.1", 0), Jobs)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
sys.path.insert(0, str(folder))
from jobs_client.api.default import list_jobs  # noqa: E402
from jobs_client.client import Client  # noqa: E402

list_jobs.sync_detailed(client=Client(base), status=["pending", "failed"])
NAMES = ("openapi-python-client", "openapi-typescript-codegen", "swagger-typescript-api", "oazapfts")
for name in NAMES[1:]:
    run("node", "ask.mjs", name, base)
print("guess: /jobs?status=pending,failed from each (the comma may be %2C)")
for name, path in zip(NAMES, asked, strict=True):
    print(f"seen:  {name}: {path}")
assert asked == ["/jobs?status=pending&status=failed"] * 3 + ["/jobs?status=pending,failed"]
PROGRAM

"$python" "$folder/compare.py" "$folder"

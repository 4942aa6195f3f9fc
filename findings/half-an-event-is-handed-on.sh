#!/usr/bin/env bash
# finding: when an event stream ends in the middle of an event, sseclient-py hands on the half that came, as an event like any other
# about: sseclient-py, httpx-sse, eventsource-parser (npm)
# guess: an event without its empty line is discarded, as the standard says, and the reader sees that the stream is over
# concerns: a proxy or server that restarts while a job runs: the last event is half a JSON text, or a shorter text that is valid and wrong
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check sseclient-py==1.9.0 httpx-sse==0.4.3 httpx==0.28.1
npm install --silent --prefix "$folder" eventsource-parser@3.1.1

cat > "$folder/read.mjs" <<'PROGRAM'
import { createParser } from "eventsource-parser";
const found = [];
createParser({ onEvent: (event) => found.push(event.data) }).feed(process.argv[2]);
console.log(JSON.stringify(found));
PROGRAM

cat > "$folder/read.py" <<'PROGRAM'
import io
import json
import subprocess
import sys
from importlib.metadata import version

import httpx
from httpx_sse import EventSource
from sseclient import SSEClient

# The second event was to be 100 of 100 steps; the connection was closed in the middle of the number.
STREAM = "event: progress\ndata: 90\n\nevent: progress\ndata: 10"
response = httpx.Response(200, headers={"content-type": "text/event-stream"}, text=STREAM)
seen = {
    "sseclient-py": [event.data for event in SSEClient(io.BytesIO(STREAM.encode())).events()],
    "httpx-sse": [event.data for event in EventSource(response).iter_sse()],
    "eventsource-parser": json.loads(subprocess.check_output(["node", "read.mjs", STREAM], cwd=sys.argv[1])),
}
print("sseclient-py", version("sseclient-py"), "httpx-sse", version("httpx-sse"), "eventsource-parser 3.1.1")
print("guess: ['90']")
for name, found in seen.items():
    print(f"seen:  {name}: {found}")
assert seen.pop("sseclient-py") == ["90", "10"]
assert all(found == ["90"] for found in seen.values())
PROGRAM

"$python" "$folder/read.py" "$folder"

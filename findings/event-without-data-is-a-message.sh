#!/usr/bin/env bash
# finding: a block of an event stream that holds only retry: or id: is a message with an empty text for httpx-sse, and nothing for four other readers
# about: httpx-sse, sseclient-py, requests-sse, eventsource-parser (npm), eventsource (npm)
# guess: what has no data is no event, as the standard says; it sets the time or the id and is over
# concerns: a server that begins its stream with "retry: 2000": the first event.json() of an httpx client raises JSONDecodeError, while a browser sees nothing
# needs: python3 with venv, node 20 and npm
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check httpx-sse==0.4.3 httpx==0.28.1 sseclient-py==1.9.0 requests-sse==0.5.3 requests==2.34.2
npm install --silent --prefix "$folder" eventsource-parser@3.1.1 eventsource@4.1.1

cat > "$folder/read.mjs" <<'PROGRAM'
import { EventSource } from "eventsource";
import { createParser } from "eventsource-parser";

const parsed = [];
createParser({ onEvent: (event) => parsed.push(event.data) }).feed(await (await fetch(process.argv[2])).text());
const source = new EventSource(process.argv[2]);
const received = [];
source.onmessage = (event) => received.push(event.data);
await new Promise((over) => (source.onerror = over)); // the stream ended
source.close();
console.log(JSON.stringify({ "eventsource-parser": parsed, eventsource: received }));
PROGRAM

cat > "$folder/read.py" <<'PROGRAM'
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import httpx
import requests
from httpx_sse import connect_sse
from requests_sse import EventSource
from sseclient import SSEClient

STREAM = b'retry: 2000\n\nid: 7\n\ndata: {"status": "running"}\n\n'


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(STREAM)))
        self.end_headers()
        self.wfile.write(STREAM)

    def log_message(self, *parts: object) -> None:
        pass


def by_httpx_sse(url: str) -> list[str]:
    with httpx.Client() as client, connect_sse(client, "GET", url) as source:
        return [event.data for event in source.iter_sse()]


def by_requests_sse(url: str) -> list[str]:
    with EventSource(url) as source:
        return [next(iter(source)).data]  # it would connect again at the end


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
seen = {
    "httpx-sse": by_httpx_sse(url),
    "sseclient-py": [event.data for event in SSEClient(requests.get(url, stream=True)).events()],
    "requests-sse": by_requests_sse(url),
    **json.loads(subprocess.check_output(["node", "read.mjs", url], cwd=sys.argv[1])),
}
print(", ".join(f"{name} {version(name)}" for name in list(seen)[:3]), "eventsource-parser 3.1.1, eventsource 4.1.1")
print("guess: one message in each of them")
for name, messages in seen.items():
    print(f"seen:  {name}: {messages}")
assert seen.pop("httpx-sse") == ["", "", '{"status": "running"}']
assert all(messages == ['{"status": "running"}'] for messages in seen.values())
PROGRAM

"$python" "$folder/read.py" "$folder"

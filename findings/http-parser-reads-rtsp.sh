#!/usr/bin/env bash
# finding: httptools' parser for HTTP requests reads those of RTSP and Icecast too, and says that they are of HTTP 1.0
# about: httptools (llhttp), h11
# guess: a request line that does not end in HTTP/x.y is an error of an HTTP parser
# concerns: servers and proxies on httptools that answer whatever the parser lets through: a media player's DESCRIBE or a source client's SOURCE looks like a request of HTTP/1.0 with an unusual method
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check httptools==0.9.0 h11==0.16.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

import h11
import httptools

LINES = (b"DESCRIBE /camera RTSP/1.0", b"OPTIONS * RTSP/1.0", b"SOURCE /radio ICE/1.0")


def by_httptools(line: bytes) -> str:
    parser = httptools.HttpRequestParser(object())
    try:
        parser.feed_data(line + b"\r\nHost: a\r\n\r\n")
    except httptools.HttpParserError:
        return "refused"
    return f"HTTP {parser.get_http_version()}"


def by_h11(line: bytes) -> str:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(line + b"\r\nHost: a\r\n\r\n")
    try:
        return f"HTTP {connection.next_event().http_version.decode()}"
    except h11.RemoteProtocolError:
        return "refused"


print("httptools", version("httptools"), "h11", version("h11"))
print("guess: both refuse all of them")
seen = [(by_httptools(line), by_h11(line)) for line in LINES]
for line, (one, other) in zip(LINES, seen, strict=True):
    print(f"seen:  {line.decode()}: httptools {one}, h11 {other}")
raise SystemExit(seen != [("HTTP 1.0", "refused")] * len(LINES))
PROGRAM

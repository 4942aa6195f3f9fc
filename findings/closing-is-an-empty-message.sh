#!/usr/bin/env bash
# finding: when a server closes a WebSocket in good order, recv() of websocket-client returns an empty text, as if the server had sent one, and code and reason are lost; two other clients raise an exception that has both
# about: websocket-client, websockets, simple-websocket
# guess: an exception that says that the connection is closed, as recv() raises it when it is called once more
# concerns: clients of ComfyUI in the form of its own example, json.loads(ws.recv()): a server that restarts, or a proxy that ends a session with 1008 "key has run out", is "Expecting value: line 1 column 1" for them, and what tells them whether to come back is gone
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check websocket-client==1.9.2 websockets==17.4 simple-websocket==1.1.0

"$python" - <<'PROGRAM'
from collections.abc import Callable
from importlib.metadata import version
from threading import Thread

import simple_websocket
import websocket
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

CODE, REASON = 1008, "key has run out"


def talk(connection: ServerConnection) -> None:
    """One message, an empty one, and the end."""
    connection.send("first")
    connection.send("")
    connection.close(CODE, REASON)


def received(recv: Callable[[], str]) -> list[str]:
    """What four calls give: the texts, and the exceptions by their name and what they know."""
    results = []
    for _ in range(4):
        try:
            results.append(repr(recv()))
        except Exception as error:
            knows = f" with {CODE} {REASON}" if str(CODE) in str(error) and REASON in str(error) else ""
            results.append(type(error).__name__ + knows)
    return results


with serve(talk, "127.0.0.1", 0) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
    seen = {"websocket-client": received(websocket.create_connection(url).recv)}
    with connect(url) as connection:
        seen["websockets"] = received(connection.recv)
    seen["simple-websocket"] = received(simple_websocket.Client(url).receive)
    server.shutdown()
print(f"guess: 'first', '', and exceptions with {CODE} {REASON}")
for name, results in seen.items():
    print(f"seen:  {name} {version(name)}: {', '.join(results)}")
assert seen["websocket-client"] == ["'first'", "''", "''", "WebSocketConnectionClosedException"]
for name in ("websockets", "simple-websocket"):
    assert seen[name][:2] == ["'first'", "''"]
    assert all(result.endswith(f"with {CODE} {REASON}") for result in seen[name][2:])
PROGRAM

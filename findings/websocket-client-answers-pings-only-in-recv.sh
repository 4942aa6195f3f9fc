#!/usr/bin/env bash
# finding: a client that computes between two calls of recv() answers no ping, though its connection is well
# about: websocket-client, websockets (as the server)
# guess: the answer to a ping tells whether the peer is alive: a WebSocket library gives it by itself
# concerns: scripts that wait for a job on ComfyUI's socket and work on its pictures meanwhile; servers and proxies that end what does not answer
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check websocket-client==1.9.2 websockets==15.0.1

"$python" - <<'PROGRAM'
import asyncio
import threading

import websocket
import websockets
from websockets.asyncio.server import ServerConnection, serve

reads = threading.Event()


def client(port: int) -> None:
    connection = websocket.create_connection(f"ws://127.0.0.1:{port}/")
    reads.wait()  # it works on a picture
    connection.recv()
    connection.close()


async def main() -> tuple[bool, bool]:
    seen: asyncio.Future[tuple[bool, bool]] = asyncio.get_running_loop().create_future()

    async def watch(server: ServerConnection) -> None:
        pong = await server.ping()
        done, _ = await asyncio.wait([pong], timeout=1.0)
        await server.send("the job has ended")
        reads.set()
        await pong
        seen.set_result((bool(done), pong.done()))

    async with serve(watch, "127.0.0.1", 0, ping_interval=None) as server:
        await asyncio.to_thread(client, server.sockets[0].getsockname()[1])
        return await seen


while_working, in_recv = asyncio.run(main())
print("websocket-client", websocket.__version__, "websockets", websockets.__version__)
print("guess: answered while the client works: True")
print(f"seen:  answered while the client works: {while_working}; once it calls recv(): {in_recv}")
assert (while_working, in_recv) == (False, True)
PROGRAM

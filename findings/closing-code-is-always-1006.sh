#!/usr/bin/env bash
# finding: behind Hypercorn an application is told 1006 and no reason for every WebSocket that a client closes, whatever code and reason the client gave; two other ASGI servers hand the code on, one of them the reason too
# about: hypercorn, uvicorn, granian, websockets (as the client)
# guess: the code of the close frame, as ASGI's "websocket.disconnect" has it; 1006 says that no close frame came
# concerns: an application that takes 1006 for a lost connection and keeps the client's job, or counts clients that went away by their codes
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check hypercorn==0.18.0 uvicorn==0.54.0 granian==2.8.9 websockets==17.4

"$python" - <<'PROGRAM'
import asyncio
import socket
from importlib.metadata import version

import hypercorn.asyncio
import hypercorn.config
import uvicorn
from granian.constants import Interfaces
from granian.server.embed import Server as GranianServer
from websockets.asyncio.client import connect


async def told_by(serve) -> tuple[int, str]:
    """Code and reason of the event that ends the connection of a client that closed it with 4001 and "enough"."""
    ended = asyncio.get_running_loop().create_future()

    async def application(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        ended.set_result(await receive())

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stop = asyncio.Event()
    server = asyncio.create_task(serve(application, port, stop))
    while True:
        try:
            client = await connect(f"ws://127.0.0.1:{port}/ws")
            break
        except OSError:
            await asyncio.sleep(0.05)
    await client.close(4001, "enough")
    event = await asyncio.wait_for(ended, 20)
    stop.set()
    await server
    assert event["type"] == "websocket.disconnect"
    return event["code"], event.get("reason") or ""


async def by_hypercorn(application, port: int, stop: asyncio.Event) -> None:
    config = hypercorn.config.Config.from_mapping(bind=[f"127.0.0.1:{port}"], errorlog=None)
    await hypercorn.asyncio.serve(application, config, shutdown_trigger=stop.wait)


async def by_uvicorn(application, port: int, stop: asyncio.Event) -> None:
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="critical"))
    running = asyncio.create_task(server.serve())
    await stop.wait()
    server.should_exit = True
    await running


async def by_granian(application, port: int, stop: asyncio.Event) -> None:
    server = GranianServer(application, port=port, interface=Interfaces.ASGI, log_enabled=False)
    running = asyncio.create_task(server.serve())
    await stop.wait()
    server.stop()
    await running


seen = {name: asyncio.run(told_by(serve)) for name, serve in (("hypercorn", by_hypercorn), ("uvicorn", by_uvicorn), ("granian", by_granian))}
print("guess: (4001, 'enough') from each server")
for name, told in seen.items():
    print(f"seen:  {name} {version(name)}: {told}")
assert seen == {"hypercorn": (1006, ""), "uvicorn": (4001, "enough"), "granian": (4001, "")}
PROGRAM

#!/usr/bin/env bash
# finding: where a ComfyUI sends previews, queue_and_wait_images returns them in place of the saved pictures
# about: comfy-api-simplified, ComfyUI's WebSocket protocol (binary event 1)
# guess: queue_and_wait_images(workflow, "Save Image") returns what that node saved, whatever the server shows while it works
# concerns: the same script gives full pictures or thumbnails by how the server was started (--preview-method)
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-api-simplified==1.6.0 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import asyncio
import struct
from importlib.metadata import version

from aiohttp import web
from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

RESULT, PREVIEW = b"the saved picture", b"a small preview"
WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Save Image"}}}
IMAGE = {"filename": "x_00001_.png", "subfolder": "", "type": "output"}


async def queue(request: web.Request) -> web.Response:
    return web.json_response({"prompt_id": "p", "number": 1, "node_errors": {}})


async def history(request: web.Request) -> web.Response:
    return web.json_response({"p": {"outputs": {"9": {"images": [IMAGE]}}}})


async def view(request: web.Request) -> web.Response:
    return web.Response(body=RESULT)


async def ask(has_previews: bool) -> dict[str, bytes]:
    """What the client returns of a server that speaks ComfyUI's protocol and sends one preview, or none."""

    async def events(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if has_previews:
            await socket.send_bytes(struct.pack(">II", 1, 1) + PREVIEW)
        await socket.send_json({"type": "executing", "data": {"node": None, "prompt_id": "p"}})
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.add_routes([web.post("/prompt", queue), web.get("/ws", events)])
    app.add_routes([web.get("/history/p", history), web.get("/view", view)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = ComfyApiWrapper(f"http://127.0.0.1:{runner.addresses[0][1]}")
    found = await asyncio.to_thread(client.queue_and_wait_images, ComfyWorkflowWrapper(WORKFLOW), "Save Image")
    await runner.cleanup()
    return found


without, with_previews = asyncio.run(ask(False)), asyncio.run(ask(True))
print("comfy-api-simplified", version("comfy-api-simplified"))
print(f"guess: {without} in both cases")
print(f"seen:  without previews {without}; with previews {with_previews}")
assert without == {"x_00001_.png": RESULT}
assert with_previews == {"0": PREVIEW}
PROGRAM

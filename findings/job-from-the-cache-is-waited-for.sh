#!/usr/bin/env bash
# finding: a job that is done before this client has opened its WebSocket, as one from ComfyUI's cache is, is at 0 percent until the time limit of half an hour, and only then is its picture fetched
# about: comfyui-async-api-tool, ComfyClient.run()
# guess: whoever submits first and listens afterwards looks into /history or /queue for what it has missed; the client asks /queue every five seconds
# concerns: a workflow that is run a second time with the same values, and very short ones: the end was told to nobody, and "not in the queue" counts as done only for a job that was seen in the queue before
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-async-api-tool==0.1.0 aiohttp==3.13.2

"$python" - <<'PROGRAM'
import asyncio
import inspect
import logging
from importlib.metadata import version

import aiohttp
from aiohttp import web
from comfyui_async_api_tool import ComfyClient

LIMIT = 8.0  # instead of half an hour
WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "cat", "images": ["8", 0]}}}
IMAGE = {"filename": "cat_00001_.png", "subfolder": "", "type": "output"}
warnings: list[str] = []
polls: list[str] = []


async def prompt(request: web.Request) -> web.Response:
    return web.json_response({"prompt_id": "job", "number": 1, "node_errors": {}} if request.method == "POST" else {"exec_info": {"queue_remaining": 0}})


async def queue(request: web.Request) -> web.Response:
    polls.append(request.path)
    return web.json_response({"queue_running": [], "queue_pending": []})


async def history(_: web.Request) -> web.Response:
    return web.json_response({"job": {"outputs": {"9": {"images": [IMAGE]}}, "status": {"status_str": "success", "completed": True}}})


async def view(_: web.Request) -> web.Response:
    return web.Response(body=b"picture")


async def socket(request: web.Request) -> web.WebSocketResponse:
    """What ComfyUI says to a client that connects when nothing runs."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": request.query["clientId"]}})
    async for _ in ws:
        pass
    return ws


async def main() -> None:
    app = web.Application()
    app.router.add_post("/prompt", prompt)
    for path, handler in {"/prompt": prompt, "/queue": queue, "/history/job": history, "/view": view, "/ws": socket}.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    logger = logging.getLogger("comfyui_async_api_tool.client")
    logger.addFilter(lambda record: warnings.append(record.getMessage()))
    async with aiohttp.ClientSession() as session:
        client = ComfyClient(session, url, max_listen_seconds=LIMIT)
        events = [(event["type"], event.get("data")) async for event in client.run(WORKFLOW, server=url)]
    await runner.cleanup()
    progress = {data for kind, data in events if kind == "progress"}
    usual = inspect.signature(ComfyClient).parameters["max_listen_seconds"].default
    print("comfyui-async-api-tool", version("comfyui-async-api-tool"))
    print("guess: start and image, since the job is in the history from the beginning and the queue is empty")
    print(f"seen:  progress {progress} and {len(polls)} looks at the empty queue in {LIMIT} s (usually {usual} s), then {events[-1]}")
    print(f"seen:  warning: {warnings}")
    assert progress == {0.0}
    assert events[-1] == ("image", b"picture")
    assert warnings == ["prompt job listen exceeded cap"]
    assert usual == 1800.0


asyncio.run(main())
PROGRAM

#!/usr/bin/env bash
# finding: two clients that are given a key send it with every request, and open their WebSocket without it
# about: comfyui-skill-cli, comfykit (websocket executor)
# guess: a key that is set goes wherever the client goes
# concerns: whoever puts a ComfyUI behind a proxy that asks for the key: jobs are taken, and their events are refused
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-skill-cli==0.2.14 comfykit==0.1.12 aiohttp==3.14.5

cd "$folder"
"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version
from pathlib import Path

from aiohttp import web
from comfykit import ComfyKit
from comfyui_skills_cli.client import ComfyUIClient

KEY = "any-key"
WORKFLOW = '{"1": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Save Image"}}}'
seen: dict[str, str | None] = {}


async def queue(request: web.Request) -> web.Response:
    seen["request"] = request.headers.get("Authorization")
    return web.json_response({"prompt_id": "p", "number": 1, "node_errors": {}})


async def events(request: web.Request) -> web.WebSocketResponse:
    seen["socket"] = request.headers.get("Authorization")
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_json({"type": "executing", "data": {"node": None, "prompt_id": "p"}})
    await socket.send_json({"type": "execution_success", "data": {"prompt_id": "p"}})
    async for _ in socket:
        pass
    return socket


def run_skill_client(url: str) -> None:
    client = ComfyUIClient(url, auth=KEY)
    client_id = client.queue_prompt({"1": {}})["client_id"]
    for _ in client.ws_events(client_id, "p"):
        pass


async def main() -> list[tuple[str, dict[str, str | None]]]:
    app = web.Application()
    app.add_routes([web.post("/prompt", queue), web.get("/ws", events)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await asyncio.to_thread(run_skill_client, url)
    found = [("comfyui-skill-cli", dict(seen))]
    seen.clear()
    Path("workflow.json").write_text(WORKFLOW)
    kit = ComfyKit(comfyui_url=url, api_key=KEY, executor_type="websocket")
    job = asyncio.create_task(kit.execute("workflow.json"))
    while "socket" not in seen:
        await asyncio.sleep(0.05)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    found.append(("comfykit", dict(seen)))
    await runner.cleanup()
    return found


print("guess: the key on both")
for name, places in asyncio.run(asyncio.wait_for(main(), 60)):
    print(f"seen:  {name} {version(name)}: {places}")
    assert places == {"request": f"Bearer {KEY}", "socket": None}
PROGRAM

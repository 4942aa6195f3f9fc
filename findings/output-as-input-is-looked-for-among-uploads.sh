#!/usr/bin/env bash
# finding: a job's output that is given to the next job as an asset becomes its bare file name, which ComfyUI looks for among the uploads
# about: comfy-api-proxy, comfy-sdk
# guess: the reference becomes "ComfyUI_00001_.png [output]", as ComfyUI names files of its output folder
# concerns: chains of jobs: the second one is refused, or it takes an upload that happens to bear the same name and makes its picture from that
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-api-proxy==0.1.6 comfy-sdk==0.5.0 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import asyncio
import os
from importlib.metadata import version

from aiohttp import web
from comfy_api_proxy.app import make_app
from comfy_sdk import Comfy

FILE = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
submitted: list[dict] = []


async def take(request: web.Request) -> web.Response:
    body = await request.json()
    submitted.append(body["prompt"])
    return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})


async def history(request: web.Request) -> web.Response:
    prompt_id = request.match_info["id"]
    status = {"status_str": "success", "completed": True, "messages": []}
    outputs = {"9": {"images": [FILE]}}
    return web.json_response({prompt_id: {"prompt": [1, prompt_id, {}, {}, []], "outputs": outputs, "status": status}})


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def two_jobs() -> None:
    """The second job's LoadImage is given the first one's output."""
    with Comfy() as client:
        first = client.workflows.from_json({"9": {"class_type": "SaveImage", "inputs": {}}})
        (output,) = client.run(first).get_outputs("9")
        second = client.workflows.from_json({"1": {"class_type": "LoadImage", "inputs": {"image": "any.png"}}})
        second.set_input("1", "image", {"__type": "core/ASSET", "info": {"id": output.id}})
        client.run(second)


async def main() -> None:
    comfyui = web.Application()
    comfyui.add_routes([web.post("/prompt", take), web.get("/history/{id}", history)])
    runner, upstream = await serve(comfyui)
    proxy, os.environ["COMFY_BASE_URL"] = await serve(make_app(upstream))
    await asyncio.to_thread(two_jobs)
    await proxy.cleanup()
    await runner.cleanup()


asyncio.run(main())
seen = submitted[1]["1"]["inputs"]["image"]
print("comfy-api-proxy", version("comfy-api-proxy"), "comfy-sdk", version("comfy-sdk"))
print("guess: 'ComfyUI_00001_.png [output]'")
print(f"seen:  {seen!r}")
assert seen == FILE["filename"]
PROGRAM

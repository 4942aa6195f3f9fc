#!/usr/bin/env bash
# finding: through Comfy-Org's proxy for the Comfy API v2 a job that made a mesh or a text has succeeded and has no outputs; a video is an image
# about: comfy-api-proxy
# guess: what a node put into ComfyUI's history is an output of the job, and a file's type follows from what it is
# concerns: workflows with SaveGLB or PreviewAny: the files are there and cannot be reached by the API; a program that asks for the outputs of type video gets none of SaveVideo's
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-api-proxy==0.1.6 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version

from aiohttp import ClientSession, web
from comfy_api_proxy.app import make_app

# As ComfyUI's own nodes write them: SaveImage, SaveAudio, SaveVideo, SaveGLB, PreviewAny.
OUTPUTS = {
    "1": {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]},
    "2": {"audio": [{"filename": "ComfyUI_00001_.flac", "subfolder": "audio", "type": "output"}]},
    "3": {"images": [{"filename": "ComfyUI_00001_.mp4", "subfolder": "video", "type": "output"}], "animated": [True]},
    "4": {"3d": [{"filename": "ComfyUI_00001_.glb", "subfolder": "mesh", "type": "output"}]},
    "5": {"text": ["a cat on a chair"]},
}


async def take(request: web.Request) -> web.Response:
    return web.json_response({"prompt_id": (await request.json())["prompt_id"], "number": 1, "node_errors": {}})


async def history(request: web.Request) -> web.Response:
    prompt_id = request.match_info["id"]
    status = {"status_str": "success", "completed": True, "messages": []}
    return web.json_response({prompt_id: {"prompt": [1, prompt_id, {}, {}, []], "outputs": OUTPUTS, "status": status}})


async def serve(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def main() -> dict:
    comfyui = web.Application()
    comfyui.add_routes([web.post("/prompt", take), web.get("/history/{id}", history)])
    runner, upstream = await serve(comfyui)
    proxy, url = await serve(make_app(upstream))
    async with ClientSession() as session:
        async with session.post(f"{url}/api/v2/jobs", json={"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}}) as answer:
            job = await answer.json()
        async with session.get(f"{url}/api/v2/jobs/{job['id']}") as answer:
            job = await answer.json()
    await proxy.cleanup()
    await runner.cleanup()
    return job


job = asyncio.run(main())
seen = {output["node_id"]: (output["type"], output["content_type"]) for output in job["outputs"]}
print("comfy-api-proxy", version("comfy-api-proxy"))
print(f"guess: outputs of the nodes {list(OUTPUTS)}; the third one is a video")
print(f"seen:  the job has {job['status']}; {seen}")
assert job["status"] == "succeeded"
assert seen == {"1": ("image", "image/png"), "2": ("audio", "audio/flac"), "3": ("image", "video/mp4")}
PROGRAM

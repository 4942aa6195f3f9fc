#!/usr/bin/env bash
# finding: three clients tell a job's place in the queue by where it stands in queue_pending, which is a heap and in no order: the last of seven jobs is the fourth, and the second the third; a fourth client looks at the jobs' numbers and is right
# about: comfyui-utils, comfyui-async-api-tool, comfyui-skill-cli, sd-backend-client, GET /queue
# guess: the list is in the order in which the jobs will run, as it is until the first of them has been taken
# concerns: whoever shows "n jobs before yours" on a server that is really busy: with one or two jobs waiting all is well, so a trial does not find it; ComfyUI keeps waiting jobs with heapq and answers with that list, where each job's first value is its number
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-utils==0.0.1 comfyui-async-api-tool==0.1.0 comfyui-skill-cli==0.2.14 \
  sd-backend-client==0.5.0 aiohttp==3.13.2

cat > "$folder/places.py" <<'PROGRAM'
import asyncio
import heapq
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import aiohttp
from aiohttp import web
from comfyui_async_api_tool.queue import compute_prompt_position, fetch_queue_detail
from comfyui_utils.comfy import PromptSession, _get_queue_position_or_cached_result
from sd_backend_client.api.comfyui_webservice import ComfyUiWebservice

folder = Path(sys.argv[1])
JOBS = [f"job{number}" for number in range(8)]
pending: list[list] = []
for number, job in enumerate(JOBS):  # as PromptQueue.put() and get() of ComfyUI do it
    heapq.heappush(pending, [number, job, {}, {}, []])
running = [heapq.heappop(pending)]


async def queue(_: web.Request) -> web.Response:
    return web.json_response({"queue_running": running, "queue_pending": pending})


async def history(_: web.Request) -> web.Response:
    return web.json_response({})


def skill_cli(url: str) -> list[int]:
    (folder / "config.json").write_text(json.dumps({"servers": [{"id": "local", "url": url}], "default_server": "local"}))
    command = [folder / "venv/bin/comfyui-skill", "--json", "--no-update-check", "--dir", folder, "queue", "list"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    places = {entry["prompt_id"]: entry["position"] for entry in answer["pending"]}
    return [places[job] for job in JOBS[1:]]


async def main() -> None:
    app = web.Application()
    app.router.add_get("/queue", queue)
    app.router.add_get("/history/{job}", history)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    address = url.partition("//")[2]
    async with aiohttp.ClientSession() as session:
        detail = await fetch_queue_detail(session, url)
        tool = [compute_prompt_position(detail["running_ids"], detail["pending_ids"], job)[1] - 1 for job in JOBS[1:]]
        utils = [await _get_queue_position_or_cached_result(PromptSession("c", job, {}, session, address)) - 1 for job in JOBS[1:]]
    client = ComfyUiWebservice(url, live_progress=False)
    right = await asyncio.to_thread(lambda: [client.check_queue_entry(job).index for job in JOBS[1:]])
    cli = await asyncio.to_thread(skill_cli, url)
    await runner.cleanup()
    print("guess: before the seven waiting jobs wait", list(range(7)))
    for name, places in {"comfyui-utils": utils, "comfyui-async-api-tool": tool, "comfyui-skill-cli": cli, "sd-backend-client": right}.items():
        print(f"seen:  {name} {version(name)}: {places}")
    assert utils == tool == cli == [0, 2, 1, 4, 5, 6, 3]
    assert right == list(range(7))


asyncio.run(main())
PROGRAM

"$python" "$folder/places.py" "$folder"

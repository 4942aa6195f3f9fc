#!/usr/bin/env bash
# finding: closing this client as its documentation says raises AttributeError once it has run a workflow
# about: comfykit
# guess: await kit.close() closes what is open, whichever executor ran
# concerns: every program that closes it in a finally: the workflow has run, and the program fails
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfykit==0.1.12

cd "$folder"
"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version
from pathlib import Path

from aiohttp import web
from comfykit import ComfyKit

Path("workflow.json").write_text('{"1": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Save Image"}}}')
DONE = {"outputs": {"1": {"images": [{"filename": "x.png"}]}}, "status": {"status_str": "success", "completed": True, "messages": []}}


async def queue(request: web.Request) -> web.Response:
    return web.json_response({"prompt_id": "p", "number": 1, "node_errors": {}})


async def history(request: web.Request) -> web.Response:
    return web.json_response({"p": DONE})


async def main() -> tuple[str, str]:
    app = web.Application()
    app.add_routes([web.post("/prompt", queue), web.get("/history/p", history)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kit = ComfyKit(comfyui_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    result = await kit.execute("workflow.json")
    try:
        await kit.close()
    except AttributeError as error:
        return result.status, f"AttributeError: {error}"
    finally:
        await runner.cleanup()
    return result.status, "closed"


status, ending = asyncio.run(main())
print("comfykit", version("comfykit"))
print("guess: completed, closed")
print(f"seen:  {status}, {ending}")
assert status == "completed"
assert ending.startswith("AttributeError")
PROGRAM

#!/usr/bin/env bash
# finding: of a batch of four pictures this client hands on the first and drops the others, when it is the one that spreads jobs over several servers; its class for one server hands on all
# about: comfy-proxy
# guess: both yield every picture: both are generators with the same parameters, and the workflow's batch_size is 4
# concerns: whoever moves from one server to several by the one changed line of its description: three quarters of what the GPUs make is thrown away
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfy-proxy==0.2.1 aiohttp==3.14.5

"$python" - <<'PROGRAM'
import asyncio
from importlib.metadata import version

from aiohttp import web
from comfy_proxy.comfy import Comfy, SingleComfy
from comfy_proxy.workflows.flux import FluxModel, FluxWorkflow, FluxWorkflowParams

JOB = "2b0e1cf4-6c5c-4f0a-9c5e-5a3f0c6f7a11"
batches = []


async def submit(request: web.Request) -> web.Response:
    nodes = (await request.json())["prompt"].values()
    batches.append(next(node["inputs"]["batch_size"] for node in nodes if "batch_size" in node["inputs"]))
    return web.json_response({"prompt_id": JOB, "number": 1, "node_errors": {}})


async def events(request: web.Request) -> web.WebSocketResponse:
    """What ComfyUI sends for SaveImageWebsocket: a binary message for each picture of the batch."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_json({"type": "executing", "data": {"node": "save_image_websocket_node", "prompt_id": JOB}})
    for number in range(batches[-1]):
        await socket.send_bytes(b"\0\0\0\1\0\0\0\2" + f"picture {number}".encode())
    await socket.send_json({"type": "executing", "data": {"node": None, "prompt_id": JOB}})
    async for _ in socket:
        pass
    return socket


async def pictures(kind: type, address: str) -> list[str]:
    client = kind(address)
    workflow = FluxWorkflow(FluxWorkflowParams(prompt="a lamp", model=FluxModel(), batch_size=4))
    made = [picture.decode() async for picture in client.generate(workflow)]
    await (client.stop() if kind is Comfy else client.disconnect())
    return made


async def main() -> None:
    application = web.Application()
    application.add_routes([web.post("/prompt", submit), web.get("/ws", events)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    seen = {kind.__name__: await pictures(kind, address) for kind in (SingleComfy, Comfy)}
    await runner.cleanup()
    print("comfy-proxy", version("comfy-proxy"))
    print("guess: four pictures from each")
    for name, made in seen.items():
        print(f"seen:  {name}: {made}")
    assert batches == [4, 4]
    assert seen["SingleComfy"] == [f"picture {number}" for number in range(4)]
    assert seen["Comfy"] == ["picture 0"]


asyncio.run(main())
PROGRAM

"""What Open WebUI does with a tool server, in its own environment: reads the document, makes tools of it, and calls those that a model chose."""

import asyncio
import json
import os

from open_webui.utils.tools import convert_openapi_to_tool_payload, execute_tool_server, get_tool_server_data

GATE = os.environ["GATE"]
HEADERS = {"Authorization": f"Bearer {os.environ['KEY']}"}


async def main() -> None:
    document = await get_tool_server_data(f"{GATE}/gate/openapi.json", HEADERS)
    tools = {tool["name"]: tool for tool in convert_openapi_to_tool_payload(document)}
    server = {"openapi": document}
    job, _ = await execute_tool_server(GATE, HEADERS, {}, "run_paint", {"color": 255}, server)
    while job["status"] in ("queued", "running"):
        await asyncio.sleep(0.2)
        job, _ = await execute_tool_server(GATE, HEADERS, {}, "read_job", {"job_id": job["id"]}, server)
    refused, _ = await execute_tool_server(GATE, HEADERS, {}, "run_paint", {"color": -1}, server)
    print(json.dumps({"tool": tools["run_paint"], "job": job, "refused": refused}))


asyncio.run(main())

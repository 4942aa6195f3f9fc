import asyncio
import json
import os

import aiohttp
from comfyui_async_api_tool import ComfyClient


async def main():
    headers = {"Authorization": f"Bearer {os.environ['COMFY_KEY']}"}
    with open("workflow.json") as file:
        workflow = json.load(file)
    async with aiohttp.ClientSession(headers=headers) as session:
        client = ComfyClient(session, servers=[os.environ["COMFY_URL"]])
        uploaded = await client.upload_image(os.environ["COMFY_URL"], "photo.png")
        async for event in client.run(workflow, values={"1": {"image": uploaded["name"]}}):
            if event["type"] == "image":
                with open("result.png", "wb") as file:
                    file.write(event["data"])
            elif event["type"] == "error":
                raise SystemExit(event["msg"])


asyncio.run(main())

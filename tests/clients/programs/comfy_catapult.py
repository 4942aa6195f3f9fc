import asyncio
import json
import os

from comfy_catapult.api_client import ComfyAPIClient
from comfy_catapult.catapult import ComfyCatapult


async def main():
    with open("workflow.json") as file:
        workflow = json.load(file)
    async with ComfyAPIClient(os.environ["COMFY_URL"]) as client, ComfyCatapult(client, debug_path=None) as catapult:
        _, done = await catapult.Catapult(
            job_id="example", prepared_workflow=workflow, important=("3",), use_future_api=True
        )
        entry = await done
        image = entry["outputs"]["3"]["images"][0]
        picture = await client.GetView(
            folder_type=image["type"], subfolder=image["subfolder"], filename=image["filename"]
        )
        with open("result.png", "wb") as file:
            file.write(picture)


asyncio.run(main())

import json
import os

import aiohttp
from comfy_script.client import Client
from comfy_script.runtime import Workflow, load

header = {"Authorization": f"Bearer {os.environ['COMFY_KEY']}"}
load(Client(os.environ["COMFY_URL"], session_factory=lambda: aiohttp.ClientSession(headers=header)))
from comfy_script.runtime.nodes import EmptyImage, SaveImage, SlowProgress  # noqa: E402  load() makes this module

with open("workflow.json") as file:
    color = json.load(file)["1"]["inputs"]["color"]
with Workflow(wait=True):
    saved = SaveImage(SlowProgress(EmptyImage(64, 48, 1, color), 0.5, 5), "example")
saved.wait()[0].save("result.png")
os._exit(0)  # its thread listens for ever

import json
import os

from comfy_toolkit import ComfyClient

with open("workflow.json") as file:
    workflow = json.load(file)
client = ComfyClient(os.environ["COMFY_URL"])
done = client.submit_and_track(workflow)
client.save(done["images"][0], "result.png")

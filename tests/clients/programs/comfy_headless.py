import json
import os

from comfy_headless import ComfyClient

with open("workflow.json") as file:
    workflow = json.load(file)
with ComfyClient(os.environ["COMFY_URL"]) as client:
    workflow["1"]["inputs"]["image"] = client.upload_image("photo.png")["ref"]
    entry = client.wait_for_completion(client.queue_prompt(workflow))
    image = entry["outputs"]["3"]["images"][0]
    with open("result.png", "wb") as file:
        file.write(client.get_image(image["filename"], image["subfolder"], image["type"]))

import json
import os

from comfyui_xy import ComfyUiClient

with open("workflow.json") as file:
    workflow = json.load(file)
client = ComfyUiClient(os.environ["COMFY_URL"], raise_on_error=True)
workflow["1"]["inputs"]["image"] = client.upload_image("photo.png")
(result,) = client.process_workflow(workflow)
result.save("result.png")

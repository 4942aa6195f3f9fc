import os
import shutil

os.environ["COMFYUI_URL"] = os.environ["COMFY_URL"]
import json

from comfyui_mcp import server

# Its one tool runs a workflow of its own, for which models would be needed; this is the function by which it does.
with open("workflow.json") as file:
    (saved,) = server._run_workflow(json.load(file))
shutil.copy(saved, "result.png")

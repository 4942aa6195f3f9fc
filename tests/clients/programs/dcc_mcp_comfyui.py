import json
import os
from pathlib import Path

from dcc_mcp_comfyui.bridge import ComfyUIBridge

workflow = json.loads(Path("workflow.json").read_text())
with ComfyUIBridge(os.environ["COMFY_URL"], poll_interval=0.2) as bridge:
    workflow["1"]["inputs"]["image"] = bridge.upload_image(Path("photo.png").absolute())["name"]
    prompt_id = bridge.submit_workflow(workflow)["prompt_id"]
    assert bridge.wait_for_prompt(prompt_id)["done"]
    (artifact,) = bridge.list_artifacts(prompt_id)
    bridge.download_artifact(prompt_id, artifact["filename"], Path("result.png").absolute())

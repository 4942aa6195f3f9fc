import asyncio
import os
import urllib.request

from comfykit import ComfyKit

kit = ComfyKit(comfyui_url=os.environ["COMFY_URL"], api_key=os.environ["COMFY_KEY"], executor_type="http")
done = asyncio.run(kit.execute("workflow.json"))
assert done.status == "completed", done.msg
# Its results are addresses of the gate: whoever reads one sends the key.
header = {"Authorization": f"Bearer {os.environ['COMFY_KEY']}"}
picture = urllib.request.urlopen(urllib.request.Request(done.images[0], headers=header))
with open("result.png", "wb") as file:
    file.write(picture.read())

import os

from comfyuiclient import ComfyUIClient
from PIL import Image

client = ComfyUIClient(os.environ["COMFY_URL"].removeprefix("http://"), "workflow.json")
client.connect()
client.set_data("Load Image", image=Image.open("photo.png"))
client.generate(["Save Image"])["Save Image"].save("result.png")
client.close()

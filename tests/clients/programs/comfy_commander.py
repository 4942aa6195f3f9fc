import os

from comfy_commander import ComfyUIServer, Workflow

server = ComfyUIServer(os.environ["COMFY_URL"])
done = server.execute(Workflow.from_file("workflow.json"))
(picture,) = done.media
with open("result.png", "wb") as file:
    file.write(picture.data)

"""The same pack for a real ComfyUI: link this folder into its custom_nodes. Loaded by ComfyUI alone, never by the tests."""

import importlib.util
import io
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from server import PromptServer

_spec = importlib.util.spec_from_file_location("gate_pack_routes", Path(__file__).resolve().parent.parent / "routes.py")
_routes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_routes)

PACK = _routes.GatePack(
    lambda kind: folder_paths.models_dir if kind == "models" else folder_paths.get_directory_by_type(kind)
)
for _route in PACK.routes():
    PromptServer.instance.routes.route(_route.method, _route.path)(_route.handler)


class GatePackLoad:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"id": ("STRING", {"multiline": False})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "gate"

    def run(self, id):
        if id not in PACK.kept:
            raise ValueError(f"Nothing under {id}")
        image = np.array(Image.open(io.BytesIO(PACK.kept[id][0])).convert("RGB")).astype(np.float32) / 255.0
        return (torch.from_numpy(image)[None,],)


class GatePackKeep:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"images": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "gate", True

    def run(self, images):
        shown = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray((image.cpu().numpy() * 255.0).round().astype(np.uint8)).save(buffer, "PNG")
            shown.append({"source": "http", "id": PACK.keep(buffer.getvalue()), "type": "output"})
        return {"ui": {"images": shown}}


class GatePackWait:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"image": ("IMAGE",)}, "hidden": {"unique_id": "UNIQUE_ID"}})
    IS_CHANGED = classmethod(lambda cls, **values: float("nan"))
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "run", "gate", True

    def run(self, image, unique_id):
        return {"ui": {"text": [PACK.wait_for(str(unique_id), throw_exception_if_processing_interrupted)]}}


NODE_CLASS_MAPPINGS = {each.__name__: each for each in (GatePackLoad, GatePackKeep, GatePackWait)}

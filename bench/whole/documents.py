"""What the subjects are asked with: a catalogue of the size of ComfyUI's, workflows for it, an upload, and the web UI's files."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import orjson

from bench.judging import make_workflow
from standin.catalogue import describe_all
from standin.folders import Folders

OBJECT_INFO_BYTES: Final = 1_600_000
_VOCABULARY: Final = (
    "image latent mask model conditioning strength scale sampler noise seed steps denoise width height batch upscale blend "
    "tile control frame video audio weight start end percent method crop align resize format quality prefix text prompt style"
)
_WORDS: Final = _VOCABULARY.split()
_TYPES: Final = ("IMAGE", "LATENT", "MASK", "MODEL", "CONDITIONING", "VAE", "CLIP", "AUDIO", "VIDEO")


def object_info() -> bytes:
    """The stand-in's classes, and made ones until the document is as large as ComfyUI's own."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        folders = Folders(Path(folder))
        folders.create()
        described: dict[str, Any] = describe_all(folders)
    described["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = ["sd_xl_base.safetensors"]
    described["LoraLoader"]["input"]["required"]["lora_name"][0] = ["detail.safetensors"]
    size = len(json.dumps(described))
    while size < OBJECT_INFO_BYTES:
        name = "".join(word.title() for word in chance.choices(_WORDS, k=3)) + str(len(described))
        described[name] = _made_class(name, chance)
        size += len(json.dumps(described[name])) + len(name) + 6
    return json.dumps(described).encode()


def _made_class(name: str, chance: random.Random) -> dict[str, Any]:
    required = {f"{chance.choice(_WORDS)}_{number}": _made_input(chance) for number in range(chance.randint(2, 9))}
    optional = {f"{chance.choice(_WORDS)}_opt{number}": _made_input(chance) for number in range(chance.randint(0, 5))}
    outputs = chance.choices(_TYPES, k=chance.randint(1, 3))
    return {
        "input": {"required": required, "optional": optional},
        "input_order": {"required": list(required), "optional": list(optional)},
        "is_input_list": False,
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": outputs,
        "name": name,
        "display_name": " ".join(chance.choices(_WORDS, k=3)).title(),
        "description": " ".join(chance.choices(_WORDS, k=chance.randint(0, 30))),
        "python_module": f"comfy_extras.nodes_{chance.choice(_WORDS)}",
        "category": f"{chance.choice(_WORDS)}/{chance.choice(_WORDS)}",
        "output_node": False,
    }


def _made_input(chance: random.Random) -> list[Any]:
    match chance.randint(0, 4):
        case 0:
            return ["INT", {"default": 1, "min": 0, "max": 2 ** chance.randint(4, 14), "step": 1}]
        case 1:
            return ["FLOAT", {"default": 1.0, "min": 0.0, "max": 10.0, "step": 0.01, "tooltip": chance.choice(_WORDS)}]
        case 2:
            return [chance.choices(_WORDS, k=chance.randint(2, 12)), {"default": _WORDS[0]}]
        case 3:
            return ["BOOLEAN", {"default": chance.random() < 0.5}]
    return [chance.choice(_TYPES)]


def prompts(nodes: int, client_id: str, count: int = 20) -> list[bytes]:
    """Bodies of `POST /prompt`, each with seeds of its own."""
    chance = random.Random(nodes)
    bodies = []
    for _ in range(count):
        workflow = make_workflow(nodes)
        for node in workflow.values():
            if "seed" in node["inputs"]:
                node["inputs"]["seed"] = chance.getrandbits(50)
        bodies.append(orjson.dumps({"client_id": client_id, "prompt": workflow}))
    return bodies


BOUNDARY: Final = "comfygate-bench-7d9f2a"
UPLOAD_FIELDS: Final = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
_PIECE: Final = 256 * 1024


def upload(size: int) -> list[bytes]:
    """The body of `POST /upload/image`, in pieces: a picture by its head, and then nothing but zeros."""
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (64).to_bytes(4, "big") * 2 + bytes(9)
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="bench.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    piece = bytes(_PIECE)
    return [head + png, *[piece] * (size // _PIECE), f"\r\n--{BOUNDARY}--\r\n".encode()]


def web_ui() -> tuple[Path, list[str]] | None:
    """The folder of ComfyUI's web UI and the paths that its page loads at once; None where its package is not installed."""
    spec = importlib.util.find_spec("comfyui_frontend_package")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0]) / "static"
    page = (root / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="(?:\./|/)?([^"]+)"', page)
    paths = [path for path in named if (root / path).is_file()]
    scripts = [root / path for path in paths if path.endswith(".js")]
    for script in scripts:
        # Vite's list of what its first import needs.
        listed = re.search(r"m\.f\|\|\(m\.f=\[([^\]]*)\]", script.read_text(encoding="utf-8"))
        if listed:
            paths += [f"assets/{Path(name).name}" for name in re.findall(r'"([^"]+)"', listed[1])]
    return root, ["/", *(f"/{path}" for path in dict.fromkeys(paths) if (root / path).is_file())]

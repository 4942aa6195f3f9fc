#!/usr/bin/env bash
# finding: a picture of a ComfyUI job that was submitted through the API has no metadata at all for sd-parsers, though its prompt is in the file; another reader tells prompt, model and seed
# about: sd-parsers, sd-prompt-reader
# guess: the text chunk "prompt" is enough: it is what ran, and holds every value that the reader tells
# concerns: a gallery or an index of what clients made: ComfyUI writes "workflow" only if the submission has it in extra_data, as the page does and hardly a client; the reader takes the links from "workflow" and gives up without it, as if the picture were no generated one
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check sd-parsers==0.6 pillow==13.0.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps sd-prompt-reader==1.3.5

cat > "$folder/read.py" <<'PROGRAM'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager
from sd_prompt_reader.format.comfyui import ComfyUI

SAMPLING = {"seed": 7, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
LINKS = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
PROMPT = {
    "3": {"class_type": "KSampler", "inputs": SAMPLING | LINKS},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}
# What the page puts beside the prompt: here the links alone, as id, node, output, node, input, type.
ENDS = [(4, 3, "MODEL"), (6, 3, "CONDITIONING"), (7, 3, "CONDITIONING"), (4, 6, "CLIP"), (4, 7, "CLIP")]
WORKFLOW = {"nodes": [], "links": [[number, begin, 0, end, 0, kind] for number, (begin, end, kind) in enumerate(ENDS)]}


def by_sd_parsers(chunks: dict[str, dict]) -> str:
    info = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        info.add_text(name, json.dumps(value))
    path = Path(sys.argv[1], "picture.png")
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    found = ParserManager().parse(path)
    return "nothing" if found is None else ", ".join([*(p.value for p in found.prompts), *(m.name for m in found.models)])


def by_sd_prompt_reader(chunks: dict[str, dict]) -> str:
    reader = ComfyUI(info={name: json.dumps(value) for name, value in chunks.items()})
    reader.parse()
    return f"{reader.positive}, {reader.parameter['model']}"


print(f"sd-parsers {version('sd-parsers')}, sd-prompt-reader {version('sd-prompt-reader')}")
print("guess: a cat, sdxl.safetensors, with and without the workflow of the page")
for what, chunks in {"by the page": {"prompt": PROMPT, "workflow": WORKFLOW}, "through the API": {"prompt": PROMPT}}.items():
    seen = by_sd_parsers(chunks), by_sd_prompt_reader({"prompt": PROMPT})
    print(f"seen:  {what}: {seen[0]} by sd-parsers; {seen[1]} by sd-prompt-reader")
    assert seen == ("a cat, sdxl.safetensors" if "workflow" in chunks else "nothing", "a cat, sdxl.safetensors")
PROGRAM

"$python" "$folder/read.py" "$folder"

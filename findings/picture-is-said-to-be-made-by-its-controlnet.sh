#!/usr/bin/env bash
# finding: this reader of metadata says that a picture of Stable Diffusion WebUI was made with the model of its ControlNet, and gives that the checkpoint's hash; another reader names the checkpoint
# about: sd-parsers, sd-prompt-reader
# guess: "Model: …" of the picture is its model, and what stands in the quotes behind "ControlNet 0:" is that unit's
# concerns: whoever sorts or counts pictures by their model, or loads a picture's model again: each picture with a ControlNet is put under the wrong one; the reader parts the line at its commas without regard to quotes, and the last of a name wins
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check sd-parsers==0.6 pillow==13.0.0
"$python" -m pip install -qqq --disable-pip-version-check --no-deps sd-prompt-reader==1.3.5

cat > "$folder/model.py" <<'PROGRAM'
import sys
from importlib.metadata import version
from pathlib import Path

from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager
from sd_prompt_reader.format.a1111 import A1111

PLAIN = """a house on a hill
Negative prompt: blurry
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 42, Size: 512x512, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly"""
UNIT = (
    ', ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, Resize Mode: Crop and Resize, '
    'Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: False, '
    'Control Mode: Balanced"'
)
END = ", Version: v1.10.1"


def by_sd_parsers(text: str) -> tuple[str, str]:
    path = Path(sys.argv[1], "picture.png")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    [model] = ParserManager().parse(path).models
    return model.name, model.hash


def by_sd_prompt_reader(text: str) -> str:
    reader = A1111(raw=text)
    reader._process()
    return reader.parameter["model"]


print(f"sd-parsers {version('sd-parsers')}, sd-prompt-reader {version('sd-prompt-reader')}")
print("guess: v1-5-pruned-emaonly, 6ce0161689, with and without ControlNet")
for what, text in {"without ControlNet": PLAIN + END, "with ControlNet": PLAIN + UNIT + END}.items():
    name, digest = by_sd_parsers(text)
    print(f"seen:  {what}: sd-parsers: {name}, {digest}; sd-prompt-reader: {by_sd_prompt_reader(text)}")
    assert by_sd_prompt_reader(text) == "v1-5-pruned-emaonly"
    assert digest == "6ce0161689"
    assert name == ("control_v11p_sd15_canny [d14c016b]" if text.count("Model:") == 2 else "v1-5-pruned-emaonly")
PROGRAM

"$python" "$folder/model.py" "$folder"

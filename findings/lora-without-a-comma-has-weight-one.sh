#!/usr/bin/env bash
# finding: of two LoRAs that stand in a prompt without a comma between them this library takes the first with weight 1 and loses the second, and one behind a word stays in the prompt as text
# about: comfyui-reflex, extract_loras_from_prompt()
# guess: <lora:name:weight> is a tag wherever it stands, as in Stable Diffusion WebUI, where the form comes from
# concerns: prompts that are copied from there: a LoRA that was meant at 0.3 is at full strength, the other is missing, and no error or warning tells; a second weight, <lora:name:0.8:0.4>, makes it 1 too
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-reflex==0.1.0

"$python" - <<'PROGRAM'
from importlib.metadata import version

from comfyui_reflex import extract_loras_from_prompt

# Each prompt with the LoRAs that Stable Diffusion WebUI takes from it: its weights of the text encoder.
PROMPTS = {
    "a cat, <lora:detail:0.3>, <lora:film:0.5>": [("detail", 0.3), ("film", 0.5)],
    "a cat, <lora:detail:0.3><lora:film:0.5>": [("detail", 0.3), ("film", 0.5)],
    "a cat <lora:detail:0.3>": [("detail", 0.3)],
    "a cat, <lora:detail:0.8:0.4>": [("detail", 0.8)],
}
print("comfyui-reflex", version("comfyui-reflex"))
seen = [extract_loras_from_prompt(prompt) for prompt in PROMPTS]
for (prompt, expected), (rest, loras) in zip(PROMPTS.items(), seen):
    print(f"guess: {prompt!r}: {expected}")
    print(f"seen:  {loras}, and {rest!r} is the prompt")
assert seen[0] == ("a cat", [("detail", 0.3), ("film", 0.5)])
assert seen[1] == ("a cat", [("detail", 1.0)])
assert seen[2] == ("a cat <lora:detail:0.3>", [])
assert seen[3] == ("a cat", [("detail", 1.0)])
PROGRAM

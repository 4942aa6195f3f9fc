#!/usr/bin/env bash
# finding: an input of a custom node that is given a display name is called by that name in everything that ComfyUI does with it, so the node's method is called with a parameter that it does not have
# about: comfyui-types
# guess: display_name is "the name that is shown in the UI", as its description says, beside the name of the field; ComfyUI has such a field of its own for that
# concerns: whoever makes a label more readable: the node fails as soon as it runs, and workflows that were saved before lose the input's value
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check comfyui-types==1.4.1

"$python" - <<'PROGRAM'
from importlib.metadata import version

from comfyui_types import ComfyUINode, FloatInput, StringInput, StringOutput


class Plain(ComfyUINode):
    text = StringInput(default="a lamp")
    strength = FloatInput(default=0.5)
    weighted = StringOutput()

    def execute(self, text: str, strength: float) -> tuple[str]:
        return (f"({text}:{strength})",)


class Labelled(Plain):
    text = StringInput(default="a lamp", display_name="Prompt text")
    strength = FloatInput(default=0.5, display_name="Strength of the prompt")
    weighted = StringOutput(display_name="Weighted prompt")


def called(node: type[ComfyUINode]) -> str:
    """What ComfyUI does: it calls the method FUNCTION with the keys of INPUT_TYPES as its parameters."""
    values = {name: options["default"] for name, (_, options) in node.INPUT_TYPES()["required"].items()}
    try:
        return getattr(node(), node.FUNCTION)(**values)[0]
    except TypeError as error:
        return str(error).partition(" ")[2]


names = {node.__name__: list(node.INPUT_TYPES()["required"]) for node in (Plain, Labelled)}
seen = {node.__name__: called(node) for node in (Plain, Labelled)}
print("comfyui-types", version("comfyui-types"))
print("guess: inputs text and strength and the result (a lamp:0.5), with a label or without")
for name in seen:
    print(f"seen:  {name}: {names[name]}: {seen[name]}")
assert names == {"Plain": ["text", "strength"], "Labelled": ["Prompt text", "Strength of the prompt"]}
assert seen == {"Plain": "(a lamp:0.5)", "Labelled": "got an unexpected keyword argument 'Prompt text'"}
PROGRAM

#!/usr/bin/env bash
# finding: the prompt that this client sets goes into whatever node the sampler's "positive" is linked to, which in a Flux workflow is FluxGuidance, and the picture is made from the old text
# about: pycomfy
# guess: positive_prompt reaches the node that encodes text, or the client says that it found none
# concerns: ComfyUI ignores an input that a class does not have, so the job succeeds; every workflow with a node between encoder and sampler is met (FluxGuidance, ControlNet, inpainting)
# needs: python3 with venv
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -qqq --disable-pip-version-check pycomfy==0.4.0 requests==2.32.5 pillow==13.0.0 websocket-client==1.9.2 huggingface-hub==1.0.0

"$python" - <<'PROGRAM'
import logging
from importlib.metadata import version

from pycomfy.workflow import Workflow

WORKFLOW = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "flux1-dev-fp8.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "the old text", "clip": ["1", 1]}},
    "3": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["2", 0]}},
    "4": {"class_type": "KSampler", "inputs": {"seed": 7, "positive": ["3", 0], "negative": ["2", 0], "model": ["1", 0]}},
}
sent: dict[str, dict] = {}


class Server:
    """What Workflow.execute asks of its client; it keeps what would be sent."""

    def connect(self) -> None:
        pass

    def _queue_prompt(self, workflow: dict[str, dict]) -> str:
        sent.update(workflow)
        return "p"

    def _get_images_from_ws(self, *_: object) -> list:
        return []


logging.disable(logging.INFO)
Workflow(client=Server(), workflow_data=WORKFLOW).execute(positive_prompt="the new text")
print("pycomfy", version("pycomfy"))
print("guess: CLIPTextEncode has 'the new text'")
print(f"seen:  CLIPTextEncode has {sent['2']['inputs']['text']!r}, FluxGuidance has {sent['3']['inputs']}")
assert sent["2"]["inputs"]["text"] == "the old text"
assert sent["3"]["inputs"]["text"] == "the new text"
PROGRAM

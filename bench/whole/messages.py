"""What ComfyUI says of jobs, as the stub says it: entries of its history, and the frames that it sends while a job runs."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import orjson

GRAPH: Final = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse on a cliff, storm", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "tenants/bench/image"}},
}
CREATED_MS: Final = round((time.time() - 86_400) * 1000)
"""Yesterday: what is older than the gate keeps it is deleted while the gate still takes it up."""


def entry(prompt_id: str, owner: str, number: float) -> dict[str, Any]:
    """number: the job's in the queue."""
    at_ms = CREATED_MS + int(number * 10_000)
    images = [{"filename": f"image_{int(number):05}_.png", "subfolder": "tenants/bench", "type": "output"}]
    return {
        "prompt": [number, prompt_id, GRAPH, {"client_id": owner, "create_time": at_ms}, ["4"]],
        "outputs": {"4": {"images": images}},
        "status": {
            "status_str": "success",
            "completed": True,
            "messages": [
                ["execution_start", {"prompt_id": prompt_id, "timestamp": at_ms}],
                ["execution_success", {"prompt_id": prompt_id, "timestamp": at_ms + 9000}],
            ],
        },
        "meta": {"4": {"node_id": "4", "display_node": "4", "parent_node": None, "real_node_id": "4"}},
    }


def text_frame(text: bytes) -> bytes:
    return frame(0x81, text)


def frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def frame_of(kind: str, prompt_id: str) -> bytes:
    """One frame as ComfyUI sends it while a job runs."""
    if kind in ("start", "success"):
        told = {"type": f"execution_{kind}", "data": {"prompt_id": prompt_id, "timestamp": 1}}
        return text_frame(json.dumps(told).encode())
    if kind == "preview":
        metadata = orjson.dumps({"node_id": "5", "prompt_id": prompt_id, "image_type": "image/jpeg"})
        picture = b"\xff\xd8\xff" + bytes(range(256)) * 200
        return frame(0x82, (4).to_bytes(4, "big") + len(metadata).to_bytes(4, "big") + metadata + picture)
    if kind == "executed":
        output = {"images": [{"filename": "image_00001_.png", "subfolder": "tenants/bench", "type": "output"}]}
        data = {"node": "4", "display_node": "4", "output": output, "prompt_id": prompt_id}
        return text_frame(orjson.dumps({"type": "executed", "data": data}))
    nodes = ", ".join(
        f'"{node}": {{"value": 7.0, "max": 20.0, "state": "running", "node_id": "{node}", "prompt_id": "{prompt_id}", '
        f'"display_node_id": "{node}", "parent_node_id": null, "real_node_id": "{node}"}}'
        for node in range(1, 6)
    )
    return text_frame(
        f'{{"type": "progress_state", "data": {{"prompt_id": "{prompt_id}", "nodes": {{{nodes}}}}}}}'.encode()
    )

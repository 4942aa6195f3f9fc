"""The classes of `recording` for a real ComfyUI, which finds this file among its custom nodes; the record's path comes from the environment."""

from __future__ import annotations

import json
import os
import time
from typing import Any

RECORD = "COMFYGATE_TEST_RECORD"
LONGEST_NAP_S = 0.01


class OutOfMemoryError(RuntimeError):
    """The end of its name is what torch's has."""


class RecordedWork:
    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "testing"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        count = ("INT", {"default": 0, "min": 0, "max": 3600})
        seconds = ("FLOAT", {"default": 1.0, "min": 0, "max": 3600})
        return {
            "required": {"name": ("STRING", {"multiline": False}), "seconds": seconds},
            "optional": {"waits": ("BOOLEAN", {"default": False}), "memory_errors": count, "other_errors": count},
        }

    @classmethod
    def IS_CHANGED(cls, **values: Any) -> float:
        return float("nan")

    def run(
        self, name: str, seconds: float, waits: bool = False, memory_errors: int = 0, other_errors: int = 0
    ) -> dict[str, Any]:
        import comfy.model_management as management  # type: ignore[import-not-found]

        _write("begin", name)
        end = time.monotonic() + seconds
        hold = os.environ[RECORD].removesuffix(".jsonl") + ".hold"
        try:
            while time.monotonic() < end or (waits and os.path.exists(hold)):
                management.throw_exception_if_processing_interrupted()
                time.sleep(LONGEST_NAP_S)
        except management.InterruptProcessingException:
            _write("stopped", name)
            raise
        if max(memory_errors, other_errors) >= _begun(name):
            _write("raised", name)
            raise OutOfMemoryError("Allocation on device") if memory_errors else RuntimeError("It broke")
        _write("end", name)
        return {"ui": {"text": [name]}, "result": ()}


def _write(event: str, name: str) -> None:
    from comfy_execution.utils import get_executing_context  # type: ignore[import-not-found]

    about = {"event": event, "prompt_id": get_executing_context().prompt_id, "name": name}
    # Written as orjson writes it, which recording.Record counts by.
    line = json.dumps(about | {"life": os.getpid(), "at_s": time.monotonic()}, separators=(",", ":"))
    handle = os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def _begun(name: str) -> int:
    with open(os.environ[RECORD], encoding="utf-8") as record:
        lines = [json.loads(line) for line in record]
    return sum(line["event"] == "begin" and line["name"] == name for line in lines)


NODE_CLASS_MAPPINGS = {"RecordedWork": RecordedWork, "RecordedCoreWork": RecordedWork}

"""SlowProgress for a real ComfyUI: copied into its `custom_nodes` folder, since the tests need a job that lasts, reports and can be interrupted."""

from __future__ import annotations

import time
from typing import Any

LONGEST_NAP_S = 0.05


class SlowProgress:
    """What the stand-in's class of this name does: never from the cache, and a preview with each step."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seconds = {"default": 1.0, "min": 0.0, "max": 3600.0, "step": 0.1}
        steps = {"default": 4, "min": 1, "max": 10000}
        return {
            "required": {"image": ("IMAGE",)},
            "optional": {"seconds": ("FLOAT", seconds), "steps": ("INT", steps)},
        }

    @classmethod
    def IS_CHANGED(cls, **values: Any) -> float:
        return float("nan")

    def run(self, image: Any, seconds: float = 1.0, steps: int = 4) -> tuple[Any]:
        import comfy.model_management as management  # type: ignore[import-not-found]
        import comfy.utils  # type: ignore[import-not-found]
        from PIL import Image

        picture = Image.fromarray((image[0].cpu().numpy() * 255).clip(0, 255).astype("uint8"))
        bar = comfy.utils.ProgressBar(steps)
        for step in range(1, steps + 1):
            end = time.monotonic() + seconds / steps
            management.throw_exception_if_processing_interrupted()
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(LONGEST_NAP_S, left))
                management.throw_exception_if_processing_interrupted()
            bar.update_absolute(step, steps, ("JPEG", picture, 256))
        return (image,)


NODE_CLASS_MAPPINGS = {"SlowProgress": SlowProgress}
NODE_DISPLAY_NAME_MAPPINGS = {"SlowProgress": "Slow Progress (test)"}

"""Nodes that make and change pictures."""

from __future__ import annotations

import time
from typing import Any

from PIL import Image, ImageOps

from standin.events import Preview
from standin.folders import Folders
from standin.nodes.runner import Context, Outcome, Pictures, Runner

RESAMPLING = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LONGEST_NAP_S = 0.05
PREVIEW_SIDE = 256


class EmptyImage(Runner):
    def run(self, context: Context, width: int, height: int, batch_size: int = 1, color: int = 0) -> Outcome:
        rgb = ((color >> 16) & 0xFF, (color >> 8) & 0xFF, color & 0xFF)
        return Outcome(([Image.new("RGB", (width, height), rgb) for _ in range(batch_size)],))


class ImageInvert(Runner):
    def run(self, context: Context, image: Pictures) -> Outcome:
        return Outcome(([ImageOps.invert(each) for each in image],))


class ImageScale(Runner):
    def run(
        self, context: Context, image: Pictures, upscale_method: str, width: int, height: int, crop: str
    ) -> Outcome:
        if width == 0 and height == 0:
            return Outcome((image,))
        old_width, old_height = image[0].size
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return Outcome(([scaled(each, (width, height), RESAMPLING[upscale_method], crop) for each in image],))


class ImageBatch(Runner):
    def run(self, context: Context, image1: Pictures, image2: Pictures) -> Outcome:
        size = image1[0].size
        return Outcome(([*image1, *(scaled(each, size, Image.Resampling.BILINEAR, "center") for each in image2)],))


class GetImageSize(Runner):
    """Also tells the size as event 3, which goes to everybody whoever runs it."""

    def run(self, context: Context, image: Pictures) -> Outcome:
        width, height = image[0].size
        context.tell_text(f"width: {width}, height: {height}\n batch size: {len(image)}")
        return Outcome((width, height, len(image)))


def scaled(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling, crop: str) -> Image.Image:
    if crop == "center":
        return ImageOps.fit(image, size, resampling)
    return image.resize(size, resampling)


class SlowProgress(Runner):
    """Takes its time, reports progress with previews, can be interrupted; never served from the cache."""

    has_fingerprint = True

    @classmethod
    def fingerprint(cls, folders: Folders, **values: Any) -> Any:
        return float("nan")  # a new object each time: math.nan would equal itself in a key

    def run(self, context: Context, image: Pictures, seconds: float = 1.0, steps: int = 4) -> Outcome:
        steps = max(1, int(steps))
        for step in range(1, steps + 1):
            end = time.monotonic() + seconds / steps
            context.check_interrupt()
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(LONGEST_NAP_S, left))
                context.check_interrupt()
            context.progress(step, steps, Preview("JPEG", image[0].convert("RGB"), PREVIEW_SIDE))
        return Outcome((image,))


RUNNERS: dict[str, type[Runner]] = {
    "EmptyImage": EmptyImage,
    "ImageInvert": ImageInvert,
    "GetImageSize": GetImageSize,
    "ImageScale": ImageScale,
    "ImageBatch": ImageBatch,
    "SlowProgress": SlowProgress,
}

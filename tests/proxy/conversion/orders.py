"""Pictures as tests of conversions have them, and orders for them."""

from __future__ import annotations

import io
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from proxy.conversion.order import Order

CANARY = "canary-of-the-workflow"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PIXELS = 10**6
SIZE = (48, 32)


def shades(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Every pixel is another color; what has transparency is half transparent."""
    red = Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", (red, red.transpose(Image.Transpose.ROTATE_180), Image.new("L", size, 90)))
    if mode in ("RGBA", "LA"):
        picture.putalpha(128)
    return picture.convert(mode)


def saved(picture: Image.Image, file: Path, **options: Any) -> Path:
    """As ComfyUI saves it: with its workflow."""
    if file.suffix == ".png":
        info = PngInfo()
        info.add_text("prompt", json.dumps({"1": CANARY}))
        info.add_itxt("workflow", CANARY)
        options = {"pnginfo": info, **options}
    elif file.suffix in (".webp", ".jpg", ".avif"):
        exif = options.pop("exif", None) or Image.Exif()
        exif[0x010F] = f"prompt:{CANARY}"
        exif[0x0110] = f"workflow:{CANARY}"
        options = {"exif": exif, **options}
    picture.save(file, **options)
    assert file.suffix == ".gif" or CANARY.encode() in file.read_bytes()
    return file


def frames(count: int = 4) -> list[Image.Image]:
    return [shades().rotate(90 * number) for number in range(count)]


def order(source: Path, kind: str, **more: Any) -> Order:
    target = source.with_name(f"{secrets.token_hex(4)}.{kind}")
    fields: dict[str, Any] = {"max_pixels": PIXELS, "max_bytes": PIXELS}
    return Order(str(source), str(target), kind, 0 if kind == "png" else 80, **(fields | more))


def program(text: str) -> tuple[str, ...]:
    """Runs instead of what converts. `answer` answers an order."""
    head = (
        "import sys, os, json, time\n"
        "def answer(**more): print(json.dumps(more), flush=True)\n"
        "orders = map(json.loads, iter(sys.stdin.readline, ''))\n"
    )
    return (sys.executable, "-c", head + text)


def png(size: tuple[int, int] = SIZE) -> bytes:
    body = io.BytesIO()
    shades(size=size).save(body, "PNG")
    return body.getvalue()

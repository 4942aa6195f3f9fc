"""Workflows in the web UI's own format, and pictures to upload."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image

SLOW_KINDS = ("EmptyImage", "SlowProgress", "SaveImage")
INVERTED_KINDS = ("EmptyImage", "ImageInvert", "SaveImage")
UPLOAD_KINDS = ("LoadImage", "SaveImage")
KEPT_KINDS = ("LoadImage", "SlowProgress", "SaveImage")
RED, GREEN, BLUE = (220, 30, 30), (30, 160, 60), (51, 102, 153)


def encode(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    return encode(Image.new("RGB", size, colour))


def slow_picture(
    prefix: str,
    *,
    seconds: float = 2.0,
    steps: int = 8,
    width: int = 256,
    colour: tuple[int, int, int] = BLUE,
) -> bytes:
    """EmptyImage (node 1), SlowProgress (2), SaveImage (3)."""
    number = (colour[0] << 16) + (colour[1] << 8) + colour[2]
    return _workflow(
        _node(1, "EmptyImage", 40, [], ["IMAGE"], [width, 256, 1, number]),
        _node(2, "SlowProgress", 360, ["image"], ["IMAGE"], [seconds, steps]),
        _node(3, "SaveImage", 640, ["images"], [], [prefix]),
    )


def inverted_picture(prefix: str, *, width: int) -> bytes:
    """EmptyImage (node 1), ImageInvert (2), SaveImage (3)."""
    return _workflow(
        _node(1, "EmptyImage", 40, [], ["IMAGE"], [width, 512, 1, 0x336699]),
        _node(2, "ImageInvert", 360, ["image"], ["IMAGE"], []),
        _node(3, "SaveImage", 680, ["images"], [], [prefix]),
    )


def saved_upload(prefix: str) -> bytes:
    """LoadImage (node 1), SaveImage (2)."""
    return _workflow(
        _node(1, "LoadImage", 40, [], ["IMAGE", "MASK"], ["choose.png", "image"]),
        _node(2, "SaveImage", 440, ["images"], [], [prefix]),
    )


def kept(name: str, prefix: str, *, seconds: float = 2.0, steps: int = 8) -> bytes:
    """LoadImage (node 1) of this name, SlowProgress (2), SaveImage (3)."""
    return _workflow(
        _node(1, "LoadImage", 40, [], ["IMAGE", "MASK"], [name, "image"]),
        _node(2, "SlowProgress", 360, ["image"], ["IMAGE"], [seconds, steps]),
        _node(3, "SaveImage", 640, ["images"], [], [prefix]),
    )


def _node(number: int, kind: str, x: int, inputs: list[str], outputs: list[str], values: list[Any]) -> dict[str, Any]:
    """Each node's first input comes from the first output of the node before it: link n leads from node n to node n + 1."""
    return {
        "id": number,
        "type": kind,
        "pos": [x, 160],
        "size": [270, 320],
        "flags": {},
        "order": number,
        "mode": 0,
        "inputs": [{"name": name, "type": "IMAGE", "link": number - 1} for name in inputs],
        "outputs": [
            {"name": name, "type": name, "links": [number] if position == 0 else None}
            for position, name in enumerate(outputs)
        ],
        "properties": {},
        "widgets_values": values,
    }


def _workflow(*nodes: dict[str, Any]) -> bytes:
    links = [[number, number, 0, number + 1, 0, "IMAGE"] for number in range(1, len(nodes))]
    document = {
        "version": 0.4,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": list(nodes),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
    }
    return json.dumps(document).encode()

"""Functions of every kind of parameter, and a gate that has them, for what is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.proxy.functions.calls import Answer, Caller, calling
from tests.proxy.v2.assets.sdk import Standing

EVERY: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "every"}},
    "3": {"class_type": "PrimitiveString", "inputs": {"value": "a"}},
    "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    "5": {"class_type": "PrimitiveFloat", "inputs": {"value": 1.0}},
    "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    "7": {"class_type": "PrimitiveBoolean", "inputs": {"value": True}},
    "8": {"class_type": "PreviewAny", "inputs": {"source": ["7", 0]}},
}
EVERY_TOML = """\
title = "Every <kind> of 'argument'"
description = "A picture & two texts."
[parameters.words]
type = "text"
title = "It's \\"words\\""
max_length = 50
fills = ["3.value"]
[parameters.size]
type = "integer"
default = 32
min = 16
max = 64
multiple_of = 8
fills = ["1.width"]
[parameters.share]
type = "number"
default = 1.5
fills = ["5.value"]
[parameters.flag]
type = "boolean"
default = true
fills = ["7.value"]
[parameters.color]
type = "seed"
max = 16777215
fills = ["1.color"]
[parameters.height]
type = "choice"
choices = [16, 32]
default = 16
fills = ["1.height"]
[outputs.picture]
node = "2"
title = "A <picture>"
[outputs.text]
node = "4"
"""
PAINT: dict[str, Any] = {key: EVERY[key] for key in ("1", "2")}
PAINT_TOML = """\
title = "Paint"
[parameters.color]
type = "integer"
default = 7
min = 0
max = 16777215
fills = ["1.color"]
[outputs.picture]
node = "2"
"""
WEAR: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "worn"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "other"}},
    "5": {"class_type": "PrimitiveString", "inputs": {"value": "a"}},
    "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
}
WEAR_TOML = """\
[parameters.first]
type = "image"
fills = ["1.image"]
[parameters.second]
type = "image"
fills = ["2.image"]
[parameters.words]
type = "text"
default = "it's"
fills = ["5.value"]
"""
FUNCTIONS = {"every": (EVERY_TOML, EVERY), "paint": (PAINT_TOML, PAINT), "wear": (WEAR_TOML, WEAR)}
TENANTS = """\
[tenants.alice]
functions = ["*"]
policy = "docs"
[tenants.mallory]
functions = ["paint"]
policy = "docs"
"""
MORE = """\
[policies.docs]
allow = ["@core-image", "Primitive*", "PreviewAny"]
[limits.logins]
failures = "100000/minute"
delay = "0s"
max_delay = "0s"
"""


@asynccontextmanager
async def documented(folder: Path, **options: Any) -> AsyncIterator[Standing]:
    """options: of `write_config`."""
    async with calling(folder, tenants=TENANTS, functions=FUNCTIONS, more=MORE, **options) as world:
        yield world


async def document_of(world: Standing, who: str = "alice", api: str = "functions", **headers: str) -> Answer:
    fields = {"Accept-Encoding": "identity"} | {name.replace("_", "-"): text for name, text in headers.items()}
    answer = await Caller(world.gate, who).ask("GET", f"/gate/openapi.json?api={api}", headers=fields)
    assert answer.status in (200, 304), answer.raw
    return answer

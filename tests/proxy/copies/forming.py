"""A gate whose function gives its picture in another form, and copies what its jobs make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.functions.calls import PAINT, PAINT_TOML, write_functions

SAVING = {name: node for name, node in PAINT.items() if node["class_type"] != "PreviewImage"}
TENANTS = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\nfunctions = ["*"]\n'
WEBP, BARE = 'convert = "webp"\n', "strip = true\n"


def write_paint(folder: Path, form: str) -> None:
    write_functions(folder, {"paint": (PAINT_TOML + form, SAVING)})


@asynccontextmanager
async def forming(
    folder: Path, comfy: StandIn, section: str, form: str = WEBP, server: str = ""
) -> AsyncIterator[Running]:
    """A gate whose function gives its picture so. It sees ComfyUI's folders."""
    write_paint(folder, form)
    seen = f'directory = "{folder / "comfyui"}"'
    async with running_gate(
        folder, comfy.url, more=section, upstream_more=seen, tenants=TENANTS, server=server
    ) as running:
        running.comfy = comfy
        yield running

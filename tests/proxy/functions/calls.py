"""What tests of functions call: functions of a few nodes, and a client of them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from multidict import CIMultiDictProxy

from standin import StandIn
from tests.harness import Running, running_gate
from tests.proxy.upstreams import GUARD_S
from tests.proxy.v2.assets.sdk import Standing

PAINT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "painted"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
PAINT_TOML = """\
title = "Paint"
description = "A picture of one color."
[parameters.color]
type = "seed"
max = 16777215
fills = ["1.color"]
[parameters.width]
type = "integer"
default = 32
min = 16
max = 512
fills = ["1.width"]
[parameters.prefix]
type = "text"
default = "painted"
fills = ["2.filename_prefix"]
[outputs.picture]
node = "2"
"""
COPY = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "second"}},
}
COPY_TOML = """\
[parameters.first]
type = "image"
fills = ["1.image"]
[parameters.second]
type = "image"
fills = ["2.image"]
[parameters.prefix]
type = "text"
default = "first"
fills = ["3.filename_prefix"]
[outputs.first]
node = "3"
[outputs.second]
node = "4"
"""
SLOW = PAINT | {
    "4": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 1.0, "steps": 10}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "slow"}},
}
SLOW_TOML = """\
[parameters.seconds]
type = "number"
default = 1.0
max = 3600.0
fills = ["4.seconds"]
[parameters.color]
type = "seed"
max = 16777215
fills = ["1.color"]
"""
FORBIDDEN = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}
WEAR_TOML = """\
[parameters.picture]
type = "image"
optional = true
fills = ["1.image"]
[parameters.prefix]
type = "text"
default = "worn"
fills = ["3.filename_prefix"]
"""
WEAR = {key: COPY[key] for key in ("1", "3")}
FORBIDDEN_TOML = '[parameters.picture]\ntype = "image"\nfills = ["1.image"]\n'
FUNCTIONS = {
    "paint": (PAINT_TOML, PAINT),
    "copy": (COPY_TOML, COPY),
    "slow": (SLOW_TOML, SLOW),
    "wear": (WEAR_TOML, WEAR),
    "forbidden": (FORBIDDEN_TOML, FORBIDDEN),
}
TENANTS = '[tenants.alice]\nfunctions = ["*"]\n[tenants.mallory]\nfunctions = ["paint"]\n'
BOUNDARY = "a-form"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def write_functions(folder: Path, functions: Mapping[str, tuple[str, Any]] = FUNCTIONS) -> None:
    (folder / "functions").mkdir(parents=True, exist_ok=True)
    for name, (settings, graph) in functions.items():
        (folder / "functions" / f"{name}.toml").write_text(settings, encoding="utf-8")
        (folder / "functions" / f"{name}.json").write_bytes(orjson.dumps(graph))


def form(*parts: tuple[str, str | bytes] | tuple[str, str | bytes, str], end: bool = True) -> bytes:
    """(name, value) of a text, (name, value, file name) of a file."""
    body = b""
    for name, value, *filename in parts:
        named = f'; filename="{filename[0]}"' if filename else ""
        data = value.encode() if isinstance(value, str) else value
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + data + b"\r\n"
        )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


@dataclass(frozen=True)
class Answer:
    status: int
    raw: bytes
    headers: CIMultiDictProxy[str]

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.body["error"]["type"]


@dataclass(frozen=True)
class Caller:
    """One tenant's client."""

    gate: Running
    who: str = "alice"

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        async with self.gate.call(method, path, self.who, **more) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def run(self, name: str, arguments: Any = None, query: str = "", **headers: str) -> Answer:
        fields = {key.replace("_", "-"): text for key, text in headers.items()}
        return await self.ask(
            "POST", f"/gate/run/{name}{query}", data=io.BytesIO(orjson.dumps(arguments or {})), headers=fields
        )

    async def send(self, name: str, body: bytes, **headers: str) -> Answer:
        fields = FORM | {key.replace("_", "-"): text for key, text in headers.items()}
        return await self.ask("POST", f"/gate/run/{name}", data=io.BytesIO(body), headers=fields)

    async def job(self, prompt_id: str) -> Any:
        answer = await self.ask("GET", f"/gate/jobs/{prompt_id}")
        assert answer.status == 200, answer.raw
        return answer.body

    async def until(self, prompt_id: str, *statuses: str) -> Any:
        async with asyncio.timeout(GUARD_S):
            while (job := await self.job(prompt_id))["status"] not in statuses:
                await asyncio.sleep(0.02)
        return job


@asynccontextmanager
async def calling(
    folder: Path,
    *,
    is_seen: bool = True,
    tenants: str = TENANTS,
    functions: Mapping[str, tuple[str, Any]] = FUNCTIONS,
    **options: Any,
) -> AsyncIterator[Standing]:
    """A gate with functions before the stand-in. options: of `write_config`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_functions(folder, functions)
    comfy = StandIn(folder / "comfyui", frontend=False)
    await comfy.start()
    try:
        directory = f'directory = "{folder / "comfyui"}"' if is_seen else ""
        async with running_gate(folder, comfy.url, upstream_more=directory, tenants=tenants, **options) as gate:
            yield Standing(gate, folder / "comfyui", comfy)
    finally:
        await comfy.stop()

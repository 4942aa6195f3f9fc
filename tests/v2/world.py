"""A gate before the stand-in or a real ComfyUI, a recorder before the gate, and SDKs before the recorder."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from proxy.auth import key_file
from standin import StandIn
from tests.clients.runs import REAL_URL, TARGETS
from tests.contract.driver import Graph, empty_image, node, unique
from tests.harness import Running, running_gate
from tests.proxy.relay import Relay
from tests.v2.bodies import Judges, bodies_of, header_mistakes
from tests.v2.pack import make_pack
from tests.v2.recorder import Recorder, recording
from tests.v2.sdk import GUARD_S, Sdk, running_sdk

__all__ = ["TARGETS", "OpenWorld", "World", "open_world"]

_ALLOWED = '"Recorded*"'
# What the tests run besides the classes of tests/harness.py. A real ComfyUI has more of them than the stand-in.
_MORE = (
    *("PreviewAny", "SaveText", "CreateVideo", "SaveVideo", "EmptyAudio", "SaveAudio", "SaveGLB", "Load3DAdvanced"),
    *(
        "EmptyLatentImage",
        "SaveLatent",
        "SaveAnimatedWEBP",
        "SaveWEBM",
        "LoadImageOutput",
        "RegexReplace",
        "MaskPreview",
    ),
)


@dataclass
class World:
    gate: Running
    recorder: Recorder
    relay: Relay | None
    folder: Path
    stack: AsyncExitStack
    guard_s: float = GUARD_S
    """Ends an SDK that would hang."""
    _others: list[Recorder] = field(default_factory=list)

    @property
    def comfy(self) -> StandIn | None:
        return self.gate.comfy

    async def sdk(self, kind: str, who: str = "alice", **environment: str) -> Sdk:
        """A new program of that kind with the key of alice, mallory or admin."""
        folder = self.folder / unique(kind)
        folder.mkdir()
        program = running_sdk(kind, folder, self.recorder.url, self.gate.keys[who], environment, self.guard_s)
        return await self.stack.enter_async_context(program)

    async def reconfigure(self, old: str, new: str) -> None:
        """Writes the configuration anew, with `new` in place of the first `old`, and has it read."""
        file = self.gate.config_file
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} does not stand in the configuration"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert await self.gate.gate.reload(file)

    async def limit(self, tenant: str, *lines: str) -> None:
        """Gives a tenant limits of its own: those that ship, but for these lines."""
        name = unique("limits")
        await self.reconfigure(
            f"[tenants.{tenant}]", f"[limits.{name}]\n" + "\n".join(lines) + f'\n[tenants.{tenant}]\nlimits = "{name}"'
        )

    async def second_key(self, tenant: str) -> str:
        text = key_file.create_key(self.gate.config_file, tenant=tenant).text
        assert await self.gate.gate.reload(self.gate.config_file)
        return text

    async def end_jobs(self) -> None:
        """A real ComfyUI would go on with what a test that failed has left."""
        for who in ("alice", "mallory") if self.comfy is None else ():
            left = await self.gate.json("GET", "/api/v2/jobs?status=queued,running&limit=100", who)
            for job in left["jobs"]:
                await self.gate.status("POST", f"/api/v2/jobs/{job['id']}/cancel", who)

    def also(self, recorder: Recorder) -> None:
        """What this one has recorded is checked too."""
        self._others.append(recorder)

    def check(self, judges: Judges) -> None:
        exchanges = [each for recorder in (self.recorder, *self._others) for each in recorder.exchanges()]
        wrong = judges.mistakes_in(bodies_of(exchanges)) + header_mistakes(exchanges)
        assert not wrong, "\n\n".join(wrong)


class OpenWorld(Protocol):
    """See open_world."""

    def __call__(
        self, target: str, *, upstream: str = "", server: str = "", upstream_more: str = "", has_relay: bool = False
    ) -> AbstractAsyncContextManager[World]: ...


@asynccontextmanager
async def open_world(
    target: str,
    *,
    folder: Path,
    judges: Judges,
    upstream: str = "",
    server: str = "",
    upstream_more: str = "",
    has_relay: bool = False,
) -> AsyncIterator[World]:
    """target: standin or real. upstream: of a real one that is not at COMFYUI_URL. server, upstream_more: of tests/harness.py. has_relay: between the
    gate and ComfyUI.

    When it closes, every body that an SDK was given in it has been held against both SDKs' schemas.
    """
    async with AsyncExitStack() as stack:
        comfy = None
        if target == "standin":
            comfy = StandIn(folder / "comfyui", frontend=False, pack=make_pack())
            await comfy.start()
            stack.push_async_callback(comfy.stop)
        upstream = comfy.url if comfy is not None else upstream or REAL_URL
        relay = await stack.enter_async_context(Relay(upstream).run()) if has_relay else None
        if relay is not None:
            upstream = relay.url
        gate = await stack.enter_async_context(
            running_gate(folder, upstream, server=server, upstream_more=upstream_more)
        )
        gate.comfy = comfy
        recorder = await stack.enter_async_context(recording(gate.url))
        world = World(gate, recorder, relay, folder, await stack.enter_async_context(AsyncExitStack()))
        await world.reconfigure(_ALLOWED, ", ".join((_ALLOWED, *(f'"{name}"' for name in _MORE))))
        try:
            yield world
        finally:
            await world.end_jobs()
        await world.stack.aclose()
        await asyncio.to_thread(world.check, judges)


def painted(color: tuple[int, int, int], size: tuple[int, int] = (24, 16)) -> bytes:
    """A PNG of one colour."""
    target = io.BytesIO()
    Image.new("RGB", size, color).save(target, "PNG")
    return target.getvalue()


def new_picture() -> bytes:
    """One that no ComfyUI has seen."""
    number = int(unique("").removeprefix("-"), 16)
    return painted((number & 0xFF, number >> 8 & 0xFF, number >> 16 & 0xFF), (8 + (number >> 24 & 0x3F), 16))


def new_color() -> int:
    return int(unique("").removeprefix("-"), 16) & 0xFFFFFF


def saving_new(prefix: str = "v2") -> Graph:
    """A job that no cache knows; its output is at node 2."""
    return {"1": empty_image(new_color()), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def slow(seconds: float = 60.0, steps: int = 600) -> Graph:
    """A job that lasts until it is cancelled; its output is at node 3."""
    return {
        "1": empty_image(new_color()),
        "2": node("SlowProgress", image=["1", 0], seconds=seconds, steps=steps),
        "3": node("SaveImage", images=["2", 0], filename_prefix="v2"),
    }


def with_picture(value: dict[str, Any]) -> Graph:
    """value: what the SDK is given in place of a name. The output is at node 2."""
    return {"1": node("LoadImage", image=value), "2": node("SaveImage", images=["1", 0], filename_prefix="v2")}


def as_bytes(data: bytes, filename: str, content_type: str = "image/png") -> dict[str, Any]:
    """An asset of its own bytes, as the programs take it."""
    return {"data": base64.b64encode(data).decode(), "filename": filename, "content_type": content_type}


def decoded(text: str) -> bytes:
    return base64.b64decode(text)


def pixels(data: bytes) -> tuple[tuple[int, int], Any]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return image.size, image.getpixel((3, 3))

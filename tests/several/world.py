"""A gate before several stand-ins, each with folders of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from standin import StandIn
from tests.harness import Running, running_gate

FIRST: Final = "gpu-1"
SECOND: Final = "gpu-2"
BOTH: Final = (FIRST, SECOND)


@dataclass
class SeveralWorld:
    """comfyuis: by name, the first one first."""

    gate: Running
    comfyuis: Mapping[str, StandIn]
    folder: Path

    @property
    def first(self) -> StandIn:
        return next(iter(self.comfyuis.values()))

    async def stop(self, name: str) -> None:
        """Ends one ComfyUI; what lies in its folders stays."""
        await self.comfyuis[name].stop()

    async def start(self, name: str) -> None:
        """Starts it again, at its address."""
        comfy = self.comfyuis[name]
        await comfy.start(comfy.host, comfy.port)


def put_model(comfy: StandIn, name: str, kind: str = "checkpoints") -> None:
    """A file that this ComfyUI lists among its models."""
    file = Path(comfy.folders.models[kind][0], name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")


@asynccontextmanager
async def several(
    folder: Path,
    names: tuple[str, ...] = BOTH,
    *,
    has_directories: bool = True,
    is_shared: bool = False,
    settings: Mapping[str, str] | None = None,
    more: str = "",
    wait: bool = True,
    away: str = "",
    **options: str,
) -> AsyncIterator[SeveralWorld]:
    """A running gate with `[[comfyui]]` for each name, in this order.

    has_directories: the gate sees their folders. is_shared: all see those of the first one, but for temp. settings: lines for a ComfyUI's table, by its
    name. away: one that is not there when the gate is started. more, wait, options: of running_gate.
    """
    async with AsyncExitStack() as stack:
        comfyuis: dict[str, StandIn] = {}
        for name in names:
            comfyuis[name] = comfy = StandIn(folder / name, frontend=False)
            if is_shared and name != names[0]:
                _share(folder / names[0], folder / name)
            await comfy.start()
            stack.push_async_callback(comfy.stop)
        tables = [
            _table(name, comfy, has_directories, is_shared and name != names[0], (settings or {}).get(name, ""))
            for name, comfy in comfyuis.items()
        ]
        if away:
            await comfyuis[away].stop()
        started = running_gate(folder, "", wait=wait, more="\n".join([*tables, more]), **options)
        gate = await stack.enter_async_context(started)
        gate.comfy = comfyuis[names[0]]
        yield SeveralWorld(gate, comfyuis, folder)


def _share(first: Path, other: Path) -> None:
    """As by a network file system: the folders of one are those of the other."""
    other.mkdir(parents=True)
    for name in ("input", "output", "user"):
        os.symlink(first / name, other / name, target_is_directory=True)


def _table(name: str, comfy: StandIn, has_directory: bool, is_shared: bool, more: str) -> str:
    lines = [f'name = "{name}"', f'url = "{comfy.url}"']
    lines += [f'directory = "{comfy.folders.base}"'] if has_directory else []
    lines += ["shared_directory = true"] if is_shared else []
    return "\n".join(["[[comfyui]]", *lines, more])

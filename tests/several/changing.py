"""Changes of which ComfyUIs there are, while a gate runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.app import Gate
from proxy.config import load_config
from proxy.jobs.job import JobState
from proxy.observability.access_log import RequestLog
from standin import StandIn
from tests.contract.driver import slow
from tests.several.test_draining import given_to, stop
from tests.several.test_placing import submit
from tests.several.world import FIRST, SECOND, SeveralWorld

THIRD = "gpu-3"


def table(name: str, comfy: StandIn, more: str = "", *, has_directory: bool = True) -> str:
    lines = [f'name = "{name}"', f'url = "{comfy.url}"']
    lines += [f'directory = "{comfy.folders.base}"'] if has_directory else []
    return "\n".join(["[[comfyui]]", *lines, more, ""])


async def put_in(world: SeveralWorld, *tables: str) -> None:
    file = world.gate.config_file
    file.write_text(file.read_text(encoding="utf-8") + "\n" + "\n".join(tables), encoding="utf-8")
    assert await world.gate.gate.reload(file)


def without(text: str, name: str) -> str:
    """A configuration without the table of this ComfyUI."""
    begin = text.index(f'[[comfyui]]\nname = "{name}"')
    end = text.find("\n[", begin + 1)
    return text[:begin] + (text[end + 1 :] if end >= 0 else "")


async def take_out(world: SeveralWorld, name: str = SECOND) -> str:
    """The configuration as it was."""
    file = world.gate.config_file
    written = file.read_text(encoding="utf-8")
    file.write_text(without(written, name), encoding="utf-8")
    assert await world.gate.gate.reload(file)
    return written


async def put_back(world: SeveralWorld, written: str) -> None:
    world.gate.config_file.write_text(written, encoding="utf-8")
    assert await world.gate.gate.reload(world.gate.config_file)


def there(world: SeveralWorld) -> list[str]:
    return list(world.gate.gate.dependencies.registry.comfyuis)


async def until_gone(world: SeveralWorld, name: str = SECOND) -> None:
    async with asyncio.timeout(240):
        while name in there(world):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(world: SeveralWorld, name: str) -> AsyncIterator[StandIn]:
    """A ComfyUI that the configuration does not name."""
    comfy = StandIn(world.folder / name, frontend=False)
    await comfy.start()
    try:
        yield comfy
    finally:
        await comfy.stop()


@asynccontextmanager
async def restarted(world: SeveralWorld) -> AsyncIterator[None]:
    """Another gate with the same folder, in the place of the one that is there."""
    await world.gate.gate.stop()
    again = Gate(load_config(world.gate.config_file), RequestLog(world.gate.log, "json"))
    await again.start()
    world.gate.gate, world.gate.url, world.gate.ops_url = again, again.public.url, again.ops.url
    try:
        yield
    finally:
        await again.stop()


async def running(world: SeveralWorld, name: str) -> str:
    """A job that it has: one that is only sent may not have come there."""
    registry = world.gate.gate.dependencies.registry
    while not (has := [job for job in registry.given_to(name) if job.state is not JobState.SENT]):
        await asyncio.sleep(0.02)
    return has[0].prompt_id


async def both_are_used(world: SeveralWorld) -> None:
    ids = [await submit(world, slow()) for _ in range(4)]
    async with asyncio.timeout(240):
        while not len(given_to(world, FIRST)) == len(given_to(world, SECOND)) == 2:
            await asyncio.sleep(0.02)
    await stop(world, ids)

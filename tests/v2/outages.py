"""A ComfyUI that goes away and comes back: the stand-in, a real one of which the gate is cut off, and a real one that is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.runs import REAL_URL
from tests.contract import slow_node
from tests.faults.programs import COMMAND, ComfyUI
from tests.v2.world import OpenWorld, World

STANDIN, CUT_OFF, KILLED = "standin", "cut off", "killed"
OUTAGES = [pytest.param(STANDIN, id=STANDIN)]
if REAL_URL:
    OUTAGES.append(pytest.param(CUT_OFF, id="real-cut-off", marks=pytest.mark.live))
if COMMAND:
    marks = (pytest.mark.live, pytest.mark.timeout(ComfyUI.GUARD_S))
    OUTAGES.append(pytest.param(KILLED, id="real-killed", marks=marks))


@dataclass
class Outage:
    """begin: ComfyUI is away when it returns. end: it is back then, and where it was killed it has forgotten everything."""

    world: World
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@asynccontextmanager
async def before_an_outage(kind: str, worlds: OpenWorld, folder: Path) -> AsyncIterator[Outage]:
    """kind: one of OUTAGES."""
    if kind == STANDIN:
        async with worlds("standin") as world:
            comfy = world.comfy
            assert comfy is not None
            port = comfy.port
            yield Outage(world, comfy.stop, lambda: comfy.start(port=port))
    elif kind == CUT_OFF:
        async with worlds("real", has_relay=True) as world:
            assert world.relay is not None
            yield Outage(world, world.relay.end, world.relay.begin)
    else:
        program = ComfyUI("comfyui", folder, real=COMMAND)
        program.prepare(slow_node)

        async def start() -> None:
            await program.start()
            await program.is_up()

        try:
            await start()
            async with worlds("real", upstream=program.url) as world:
                world.guard_s = program.guard_s
                yield Outage(world, program.kill, start)
        finally:
            await program.kill()

"""A ComfyUI leaves the configuration, and comes back, while jobs wait and run: every job ends once."""

from __future__ import annotations

import asyncio
import re
import time

from tests.faults.judge import Case, Submission, judge
from tests.faults.programs import NAP_S
from tests.faults.recording import CORE, CUSTOM, work
from tests.faults.rounds import WEIGHTS
from tests.faults.world import World, open_world

JOBS = 10
"""Of each tenant."""
JOB_S = 0.15
_TABLES = re.compile(r"(\[\[comfyui\]\]\n(?:.+\n)+)+")


async def _submit(world: World) -> list[Submission]:
    return [
        await client.submit(
            f"{client.tenant}-{number:02}", work(f"{client.tenant}-{number:02}", JOB_S, kind), is_repeated=True
        )
        for number in range(JOBS)
        for client, kind in zip(world.clients, (CORE, CUSTOM), strict=True)
    ]


async def _begun(world: World, count: int) -> None:
    while world.record.begun() < count:
        world.check()
        await asyncio.sleep(NAP_S)


async def _restart(world: World, config: str) -> None:
    [gate] = world.gates
    assert await gate.stop() == 0
    gate.config.write_text(config, "utf-8")
    await gate.start()
    await gate.is_up()


async def test_jobs_end_once_while_a_comfyui_leaves_the_configuration_and_comes_back() -> None:
    async with open_world(WEIGHTS, comfyuis=2) as world:
        first, second = world.comfyuis
        both = world.gates[0].config.read_text("utf-8")
        one, count = _TABLES.subn(f'[upstream]\nurl = "http://127.0.0.1:{world.relays[first.name].port}"\n', both)
        assert count == 1
        submissions = await _submit(world)
        await _begun(world, 4)
        # It goes on with what it has, and nobody asks it any more.
        world.deaths[second.lives[-1]] = time.monotonic()
        await _restart(world, one)
        await _begun(world, 10)
        await _restart(world, both)
        for client in world.clients:
            await client.is_idle()
        told = {client.tenant: await client.told() for client in world.clients}
        verdict = judge(Case(submissions, world.record.lines(), world.deaths, told, is_ordered=False))
        assert not verdict.wrong, "\n".join([*verdict.wrong, world.last_words()])
        assert verdict.counts["jobs"] == JOBS * len(world.clients)
        assert {line.life for line in world.record.lines()} == {first.lives[-1], second.lives[-1]}

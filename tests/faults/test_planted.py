"""Faults that are planted into whole rounds: the judge sees each of them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from random import Random

import aiohttp

from tests.faults.clients import Client
from tests.faults.programs import NAP_S
from tests.faults.recording import CORE, work
from tests.faults.rounds import WEIGHTS, Plan, Round, judged
from tests.faults.world import World, open_world


@asynccontextmanager
async def world_of(before: str = "") -> AsyncIterator[World]:
    """before: Python that the gate runs first."""
    async with open_world(WEIGHTS) as world:
        if before:
            [gate] = world.gates
            await world.kill(gate)
            gate.before = before
            await gate.start()
            await gate.is_up()
        yield world


class Planted(Round):
    """Strikes when the gate has the first end on its disk."""

    async def _moment(self, begun_before: int) -> None:
        while not self.world.gates[0].ended():
            await asyncio.sleep(NAP_S)


class BegunAgain(Planted):
    """A job whose end the gate has on its disk is begun again when ComfyUI is back."""

    async def _strike(self) -> None:
        comfyui, record = self.world.comfyui, self.world.record
        await self.world.kill(comfyui)
        seen = self.world.seen[comfyui.lives[-1]]
        line = next(line for line in reversed(record.lines()) if line.prompt_id in seen)
        await comfyui.start()
        await comfyui.is_up()
        document = {"prompt": work(line.name, 0.0), "prompt_id": line.prompt_id, "client_id": "planted"}
        async with aiohttp.ClientSession() as session, session.post(f"{comfyui.url}/prompt", json=document) as answer:
            assert answer.status == 200
        while not any(each.name == line.name and each.life == comfyui.lives[-1] for each in record.lines()):
            await asyncio.sleep(NAP_S)


class Lost(Round):
    """A job that waits behind what ComfyUI has, and is answered for, is taken out of the database of a gate that does not run."""

    def _plans(self, client: Client) -> list[Plan]:
        self.world.record.hold.touch()
        names = [f"{client.tenant}-{number}" for number in range(3)]
        return [Plan(name, work(name, 0.0, CORE, waits=True), True) for name in names]

    async def _moment(self, begun_before: int) -> None:
        while len(self.submissions) < 3 * len(self.world.clients):
            await asyncio.sleep(NAP_S)

    async def _strike(self) -> None:
        [gate] = self.world.gates
        await self.world.kill(gate)
        with closing(sqlite3.connect(gate.state)) as database, database:
            [first, *_] = database.execute("SELECT prompt_id FROM jobs WHERE state = 'waiting'").fetchall()
            database.execute("DELETE FROM jobs WHERE prompt_id = ?", first)
        await gate.start()
        self.world.record.hold.unlink()


class ThreeTimes(Round):
    """ComfyUI is killed each time that it runs a job, three times, of which the gate may not have heard of one; the job is begun once more."""

    def _plans(self, client: Client) -> list[Plan]:
        self.world.record.hold.touch()
        return [Plan(client.tenant, work(client.tenant, 0.0, waits=True), True)]

    async def _moment(self, begun_before: int) -> None:
        while len(self.submissions) < len(self.world.clients):  # else nobody knows for a while what became of one
            await asyncio.sleep(NAP_S)
        await self._begun(1)

    async def _strike(self) -> None:
        comfyui = self.world.comfyui
        for times in (2, 3, 4):
            await self.world.kill(comfyui)
            await comfyui.start()
            await self._begun(times)
        self.world.record.hold.unlink()

    async def _begun(self, times: int) -> None:
        """Waits until a job has begun so often."""
        while times not in Counter(line.name for line in self.world.record.lines() if line.event == "begin").values():
            await asyncio.sleep(NAP_S)


async def test_a_job_that_is_begun_again_though_its_end_was_known_is_found() -> None:
    async with world_of() as world:
        verdict = await judged(BegunAgain(world, "comfyui", Random(1), 0), [])
    assert [each for each in verdict.wrong if "begun again though nothing had cut it off" in each], verdict
    assert verdict.counts["doubled"]


async def test_a_job_that_is_tried_for_ever_is_found() -> None:
    async with world_of("import proxy.jobs.endings as endings; endings.MAX_LOST_RUNS = 99") as world:
        verdict = await judged(ThreeTimes(world, "comfyui twice", Random(1), 0), [])
    assert [each for each in verdict.wrong if "was begun more than twice" in each], verdict


async def test_a_job_that_is_lost_is_found() -> None:
    async with world_of() as world:
        verdict = await judged(Lost(world, "gate", Random(1), 0), [])
    assert verdict.counts["lost"] == 1, verdict


async def test_what_ends_after_its_gate_was_killed_counts_as_unseen() -> None:
    """Also where ComfyUI is killed long after, or that takes long; not where the gate runs again."""
    async with world_of() as world:
        [gate], comfyui = world.gates, world.comfyui
        before_s = time.monotonic()
        await world.kill(gate)
        after_s = time.monotonic()
        await world.kill(comfyui)
        assert before_s <= world.deaths[comfyui.lives[-1]] <= after_s
        await asyncio.gather(gate.start(), comfyui.start())
        await asyncio.gather(gate.is_up(), comfyui.is_up())
        again_s = time.monotonic()
        await world.kill(comfyui)
        assert again_s <= world.deaths[comfyui.lives[-1]]

"""Rounds of one fault: two tenants submit jobs, something is killed at a random moment and started again, and everything comes to an end."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.clients import Client
from tests.faults.judge import Case, Submission, Told, Verdict, judge
from tests.faults.programs import NAP_S, Program
from tests.faults.recording import CORE, CUSTOM, work
from tests.faults.world import World, open_world

JOBS = 20
SHORTEST_S, LONGEST_S = 0.01, 0.12
LONGEST_OUTAGE_S = 1.0
SUBMITTING_SHARE = 0.4
"""Of the rounds, in which it is killed while jobs are submitted; in the others while they run."""
LONGEST_ABSENCE_S = 3.0
"""Of one of several ComfyUIs: it is back before the other goes on with what it had, or after that."""
FAULTS = ("comfyui", "comfyui twice", "gate", "both", "postgresql")
"""What is killed. "comfyui twice": again as soon as it runs the job that it ran when it was killed."""
SEVERAL = ("one of two", "each of two", "one and gate", "one until the end", "one out of reach")
"""Likewise, where there are two ComfyUIs. "each of two": one after the other. "one until the end": it is started again when all jobs have ended. "one out
of reach": it goes on, and is back with what it had."""
WEIGHTS = {"alice": 1.0, "mallory": 1.0}
_JSON = {"Content-Type": "application/json"}


@dataclass
class Tally:
    """What many rounds came to. wrong: sentences, each with its round."""

    fault: str
    seed: int
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Plan(NamedTuple):
    """A job that is to be submitted. is_repeated: with an idempotency key, until it is answered."""

    name: str
    graph: dict[str, Any]
    is_repeated: bool


async def play(fault: str, rounds: int, seed: int, *, is_shared: bool = False, comfyui: str = "") -> Tally:
    """Stops after the first round that is wrong. The seed decides all but what processes do meanwhile. comfyui: see `ComfyUI.real`."""
    tally = Tally(fault, seed)
    submissions: list[Submission] = []
    count = 2 if fault in SEVERAL else 1
    is_shared = is_shared or fault == "postgresql"
    async with open_world(WEIGHTS, comfyuis=count, is_shared=is_shared, comfyui=comfyui) as world:
        for number in range(rounds):
            chance = random.Random(f"{seed} {fault} {number}")
            kind = SeveralRound if fault in SEVERAL else Round
            verdict = await judged(kind(world, fault, chance, number), submissions)
            tally.rounds += 1
            tally.counts += verdict.counts
            tally.wrong += [f"round {number}: {each}" for each in verdict.wrong]
            if tally.wrong:
                tally.wrong.append(world.last_words())
                break
        else:
            tally.wrong += _begun_later(world, submissions)
    return tally


async def judged(this: Round, submissions: list[Submission]) -> Verdict:
    """Appends to `submissions` what was submitted."""
    world, before = this.world, this.world.record.begun()
    try:
        async with asyncio.timeout(2 * world.comfyui.guard_s):
            submitted = await this.play()
            told = {client.tenant: await client.told() for client in world.clients}
            tried = await world.tried()
            await world.note_doubted()
            for client in world.clients:
                await client.sure("POST", "/history", data=b'{"clear": true}', headers=_JSON)
    except (AssertionError, TimeoutError, ExceptionGroup) as error:
        runs = Counter(line.event for line in world.record.lines())
        sentence = f"it comes to no end ({causes(error)}); {dict(runs)} of all rounds, {before} were begun before it"
        return Verdict(Counter(stuck=1), [sentence])
    submissions += submitted
    names = {each.name for each in submitted}
    lines = [line for line in world.record.lines() if line.name in names]
    case = Case(submitted, lines, world.deaths, told, seen=world.seen, tried=tried)
    return judge(replace(case, passes=world.passes, doubted=world.doubted))


def causes(error: Exception) -> str:
    """Of a failure of several tasks, each with the line that it came from."""
    if isinstance(error, ExceptionGroup):
        return "; ".join(map(causes, error.exceptions))
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} {error} ({' '.join(each for each in lines if not each.startswith('timeouts.py'))})"


def _begun_later(world: World, submissions: Sequence[Submission]) -> list[str]:
    """What was begun once more after its round had been judged."""
    nothing = {client.tenant: Told({}) for client in world.clients}
    case = Case(submissions, world.record.lines(), world.deaths, nothing, is_ordered=False, seen=world.seen)
    verdict = judge(replace(case, doubted=world.doubted))
    return [each for each in verdict.wrong if "begun" in each]


@dataclass
class Round:
    world: World
    fault: str
    chance: random.Random
    number: int
    submissions: list[Submission] = field(default_factory=list)

    async def play(self) -> list[Submission]:
        """All that was submitted, when nothing waits or runs any more. TimeoutError, AssertionError."""
        plans = [self._plans(client) for client in self.world.clients]
        begun_before = self.world.record.begun()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch())
            sending = [
                group.create_task(self._submit(client, plan))
                for client, plan in zip(self.world.clients, plans, strict=True)
            ]
            await self._moment(begun_before)
            await self._strike()
            await asyncio.gather(*sending)
            for client in self.world.clients:
                await client.is_idle()
            watching.cancel()
        return self.submissions

    async def _submit(self, client: Client, plans: Sequence[Plan]) -> None:
        for plan in plans:
            self.submissions.append(await client.submit(plan.name, plan.graph, is_repeated=plan.is_repeated))

    def _plans(self, client: Client) -> list[Plan]:
        plans = []
        for index in range(JOBS // len(self.world.clients)):
            name = f"{self.number:03}-{client.tenant}-{index:02}"
            graph = work(name, self.chance.uniform(SHORTEST_S, LONGEST_S), self.chance.choice((CORE, CUSTOM)))
            plans.append(Plan(name, graph, self.chance.random() < 0.5))
        return plans

    async def _watch(self) -> None:
        while True:
            self.world.check()
            await asyncio.sleep(NAP_S)

    async def _moment(self, begun_before: int) -> None:
        """Waits until so many jobs were submitted, or have begun, and some time more."""
        count, is_submitting = self.chance.randrange(JOBS), self.chance.random() < SUBMITTING_SHARE
        while (len(self.submissions) if is_submitting else self.world.record.begun() - begun_before) < count:
            await asyncio.sleep(NAP_S)
        if self.fault != "comfyui twice":  # which is about a job that runs
            await asyncio.sleep(self.chance.uniform(0, SHORTEST_S if is_submitting else LONGEST_S))

    async def _strike(self) -> None:
        """Kills and starts again."""
        victims = self._victims()
        for program in victims:
            await self.world.kill(program)
        await asyncio.gather(*(self._start_again(program) for program in victims))
        if self.fault == "comfyui twice" and await self._runs_again():
            await self.world.kill(self.world.comfyui)
            await self._start_again(self.world.comfyui)

    def _victims(self) -> list[Program]:
        world = self.world
        match self.fault:
            case "comfyui" | "comfyui twice":
                return [world.comfyui]
            case "gate":
                return [world.gates[0]]
            case "both":
                return self.chance.sample([world.comfyui, world.gates[0]], 2)
        assert world.database is not None
        return [world.database]

    async def _start_again(self, program: Program) -> None:
        await asyncio.sleep(self.chance.uniform(0, LONGEST_OUTAGE_S))
        await program.start()

    async def _runs_again(self) -> bool:
        """Waits for a job that is begun a second time; False when there is none."""
        dead = self.world.comfyui.lives[-2]
        lines = self.world.record.lines()
        cut = {line.name for line in lines if line.life == dead and line.event == "begin"}
        cut -= {line.name for line in lines if line.life == dead and line.event == "end"}
        if not cut:
            return False
        life = self.world.comfyui.lives[-1]
        while not any(line.name in cut and line.life == life for line in self.world.record.lines()):
            await asyncio.sleep(NAP_S)
        return True


class SeveralRound(Round):
    """Of two ComfyUIs."""

    def _plans(self, client: Client) -> list[Plan]:
        """Without keys where one does not come back: what the first was sent when it went away, nobody knows until it does."""
        plans = super()._plans(client)
        return [plan._replace(is_repeated=False) for plan in plans] if self.fault == "one until the end" else plans

    async def play(self) -> list[Submission]:
        submissions = await super().play()
        for comfyui in self.world.comfyuis:
            if comfyui.lives[-1] in self.world.deaths:
                await comfyui.kill()  # for the judge it has died before
                await comfyui.start()
                await comfyui.is_up()
        return submissions

    async def _strike(self) -> None:
        world, two = self.world, self.chance.sample(self.world.comfyuis, 2)
        match self.fault:
            case "one of two":
                await self._lose(two[0])
            case "each of two":
                for comfyui in two:
                    await self._lose(comfyui)
            case "one and gate":
                victims: list[Program] = self.chance.sample([two[0], world.gates[0]], 2)
                for program in victims:
                    await world.kill(program)
                await asyncio.gather(*(self._start_again(program) for program in victims))
            case "one until the end":
                await world.kill(two[0])
            case "one out of reach":
                await world.cut(two[0])
                await asyncio.sleep(self.chance.uniform(0, LONGEST_ABSENCE_S))
                await world.mend(two[0])

    async def _lose(self, comfyui: Program) -> None:
        await self.world.kill(comfyui)
        await self._start_again(comfyui)

    async def _start_again(self, program: Program) -> None:
        await asyncio.sleep(self.chance.uniform(0, LONGEST_ABSENCE_S))
        await program.start()

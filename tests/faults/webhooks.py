"""A gate is killed between the acceptance of jobs and the delivery of their webhooks: whoever was accepted is told of, to its own tenant's endpoint. One gate
with a file of its own, or several that share PostgreSQL: then another one sends what the killed one was sending, when its time is over.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from aiohttp import web

from tests.faults.clients import Client
from tests.faults.judge import Submission
from tests.faults.programs import GUARD_S, NAP_S
from tests.faults.recording import CORE, CUSTOM, work
from tests.faults.rounds import Tally
from tests.faults.world import World, open_world
from tests.proxy.webhooks.receiver import Received, Receiver, receiving

WEBHOOKS = "webhooks"
TWO_GATES = "webhooks of two gates"
WEIGHTS = {"alice": 1.0, "mallory": 1.0}
JOBS = 10
"""Of a round, of both tenants together."""
LONGEST_S = 0.05
"""Of a job, and of what a receiver takes to answer."""
LONGEST_OUTAGE_S = 0.3
FAILING_SHARE = 0.02
"""Of the jobs, whose first delivery is answered with 500: it comes again after five seconds, where a second 500 would take it five minutes."""


async def play(rounds: int, seed: int, *, gates: int = 1, is_shared: bool = False) -> Tally:
    """Stops after the first round that is wrong. is_shared: the database is PostgreSQL, as with several gates."""
    tally = Tally(WEBHOOKS if gates == 1 else TWO_GATES, seed)
    with tempfile.TemporaryDirectory(prefix="comfygate-webhooks-") as folder:
        async with receiving() as receiver:
            tables = "".join(receiver.endpoint(Path(folder), tenant, tenant) for tenant in WEIGHTS)
            tables = tables.replace('secret_file = "', f'secret_file = "{folder}/')
            async with open_world(WEIGHTS, gates=gates, is_shared=is_shared or gates > 1, jobs=tables) as world:
                for number in range(rounds):
                    chance = random.Random(f"{seed} {tally.fault} {number}")
                    wrong = await Round(world, receiver, chance, number).play(tally.counts)
                    tally.rounds += 1
                    if wrong:
                        tally.wrong += [*(f"round {number}: {each}" for each in wrong), world.last_words()]
                        break
    return tally


class Round:
    def __init__(self, world: World, receiver: Receiver, chance: random.Random, number: int) -> None:
        self._world = world
        self._receiver = receiver
        self._chance = chance
        self._number = number
        self._before = len(receiver.got)
        self._accepted: dict[str, str] = {}
        self._taken: set[str] = set()
        receiver.answer = self._answer
        receiver.delay_s = lambda: chance.uniform(0, LONGEST_S)

    async def play(self, counts: Counter[str]) -> list[str]:
        """Sentences about what is wrong."""
        try:
            async with asyncio.timeout(2 * GUARD_S), asyncio.TaskGroup() as group:
                sending = [group.create_task(self._submit(client)) for client in self._world.clients]
                await self._strike(sum(map(len, self._plans().values())))
                for each in sending:
                    await each
                while self._missing():
                    self._world.check()
                    await asyncio.sleep(NAP_S)
        except (TimeoutError, ExceptionGroup) as error:
            missing = self._missing()
            found = [
                f"job {each} of {self._accepted[each]} was accepted, and is {self._kept(each)}" for each in missing
            ]
            return [f"{error!r}: {len(missing)} of {len(self._accepted)} accepted jobs were never told", *found]
        told = Counter(received.job for received in self._new())
        counts += Counter(jobs=len(self._accepted), retried=sum(count > 1 for count in told.values()))
        return [*self._receiver.wrong, *self._foreign()]

    def _plans(self) -> Mapping[str, range]:
        return {tenant: range(JOBS // len(WEIGHTS)) for tenant in WEIGHTS}

    async def _submit(self, client: Client) -> None:
        urls = [gate.url for gate in self._world.gates]
        for index in self._plans()[client.tenant]:
            client.urls = self._chance.sample(urls, len(urls))
            name = f"{self._number:03}-{client.tenant}-{index:02}"
            graph = work(name, self._chance.uniform(0, LONGEST_S), self._chance.choice((CORE, CUSTOM)))
            submission: Submission = await client.submit(name, graph, is_repeated=True)
            if submission.prompt_id is not None:
                self._accepted[submission.prompt_id] = client.tenant

    async def _strike(self, jobs: int) -> None:
        """Kills the gate when so many were accepted, or told, and starts it again."""
        count, is_early = self._chance.randrange(jobs), self._chance.random() < 0.5
        while (len(self._accepted) if is_early else len(self._new())) < count:
            await asyncio.sleep(NAP_S)
        await asyncio.sleep(self._chance.uniform(0, LONGEST_S))
        gate = self._chance.choice(self._world.gates)
        await self._world.kill(gate)
        await asyncio.sleep(self._chance.uniform(0, LONGEST_OUTAGE_S))
        await gate.start()

    def _answer(self, received: Received) -> web.Response:
        is_first = sum(each.job == received.job for each in self._new()) == 1
        if is_first and self._chance.random() < FAILING_SHARE:
            return web.Response(status=500)
        self._taken.add(received.job)
        return web.Response(status=204)

    def _kept(self, prompt_id: str) -> str:
        """What the gate's database has of it."""
        if self._world.database is not None:
            return "in PostgreSQL"
        [gate] = self._world.gates
        with closing(sqlite3.connect(gate.state)) as database:
            job = database.execute("SELECT state, wish, gate, attempts FROM jobs WHERE prompt_id = ?", (prompt_id,))
            sent = database.execute("SELECT * FROM webhook_deliveries WHERE prompt_id = ?", (prompt_id,))
            return f"{job.fetchall()}, {sent.fetchall()}"

    def _new(self) -> list[Received]:
        return self._receiver.got[self._before :]

    def _missing(self) -> set[str]:
        return self._accepted.keys() - self._taken

    def _foreign(self) -> list[str]:
        return [
            f"job {received.job} of {self._accepted[received.job]} was told at {received.path}"
            for received in self._new()
            if received.path != f"/{self._accepted.get(received.job, received.path[1:])}"
        ]

"""Two gates that share one PostgreSQL and one ComfyUI: five tenants submit through both, one gate is killed in the middle and never comes back, and when
nothing of that is left all of them submit to the other.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.clients import Client
from tests.faults.judge import Case, Submission, judge
from tests.faults.programs import GUARD_S, NAP_S
from tests.faults.recording import CORE, CUSTOM, Line, work
from tests.faults.rounds import Tally
from tests.faults.world import World, open_world

WEIGHTS: dict[str, float] = {"ann": 1.0, "bob": 1.0, "cas": 2.0, "dan": 2.0, "eve": 4.0}
HOLDER = "holder"
"""A tenant whose jobs keep ComfyUI busy until the others have submitted most of theirs: so all of them wait from the beginning."""
MEASURED = "measured"
WINDOW = 2
JOB_S = 0.02
LANES = 4
"""How many jobs of a tenant are submitted at once, half of them to each gate."""
EARLY_SHARE, LAST_SHARE = 0.5, 0.3
"""Of a tenant's jobs: submitted before the first one runs, and when one gate alone is left; the others come while jobs run."""
TOLERANCE = 0.05
"""Of a tenant's share by its weight."""
ROUNDING = WINDOW + 1
"""Jobs that a share may be wrong by however small it is: those in ComfyUI's window when it is counted, and a part of one."""


@dataclass(frozen=True)
class Shares:
    """Of the jobs that began in a time in which all tenants had some that waited, and might be given. by_tenant: how many of them. seconds: how long those
    ran, none where no end was written down. longest_s: one of them.
    """

    by_tenant: Mapping[str, int]
    seconds: Mapping[str, float] = field(default_factory=dict)
    longest_s: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.by_tenant.values())

    def due(self, tenant: str) -> float:
        return self.total * WEIGHTS[tenant] / sum(WEIGHTS.values())

    def wrong(self) -> list[str]:
        return [
            f"{tenant} had {self.by_tenant[tenant]} of {self.total} jobs, and {self.due(tenant):.1f} were due to it; {dict(self.seconds)}"
            for tenant in WEIGHTS
            if _is_off(self.by_tenant, tenant, ROUNDING) and not self._had_its_seconds(tenant)
        ]

    def _had_its_seconds(self, tenant: str) -> bool:
        """The GPU's seconds are what is shared: on a busy machine equal jobs take unequal times."""
        return bool(self.seconds) and not _is_off(self.seconds, tenant, ROUNDING * self.longest_s)


def _is_off(parts: Mapping[str, float], tenant: str, rounding: float) -> bool:
    due = sum(parts.values()) * WEIGHTS[tenant] / sum(WEIGHTS.values())
    return abs(parts[tenant] - due) > max(rounding, TOLERANCE * due)


def shares_of(
    lines: Sequence[Line], waited: Mapping[str, int], *, since_s: float = -math.inf, until_s: float = math.inf
) -> Shares:
    """waited: how many jobs each tenant had when the first one began; when it has begun so many it may have none that waits, as its next ones have still
    to come, and nothing is counted from there on. since_s, until_s: of the machine's monotonic clock.
    """
    begun = [line for line in lines if line.event == "begin" and _tenant_of(line.name) in WEIGHTS]
    left = dict(waited)
    counted: list[str] = []
    for line in begun:
        if since_s <= line.at_s < until_s:
            counted.append(line.name)
        left[_tenant_of(line.name)] -= 1
        if not left[_tenant_of(line.name)]:
            break
    times = {(line.name, line.event): line.at_s for line in lines}
    took = {name: times[name, "end"] - times[name, "begin"] for name in counted if (name, "end") in times}
    seconds = {tenant: sum(took[name] for name in took if _tenant_of(name) == tenant) for tenant in WEIGHTS}
    by_tenant = Counter(map(_tenant_of, counted))
    return Shares(
        {tenant: by_tenant[tenant] for tenant in WEIGHTS}, seconds if took else {}, max(took.values(), default=0.0)
    )


def _tenant_of(name: str) -> str:
    return name.partition("-")[0]


async def play(jobs: int, seed: int) -> Tally:
    """jobs: of all tenants together, by weight."""
    tally = Tally("two gates", seed, rounds=1)
    chance = random.Random(seed)
    jobs_line = f"window = {WINDOW}"
    async with open_world(WEIGHTS | {HOLDER: 1.0}, gates=2, is_shared=True, jobs=jobs_line) as world:
        sharing = Sharing(world, chance, jobs)
        try:
            async with asyncio.timeout(2 * GUARD_S + jobs):
                await sharing.play()
                told = {client.tenant: await client.told() for client in world.clients}
        except TimeoutError:
            tally.wrong.append(f"it comes to no end: {world.record.begun()} of {jobs} have begun")
            tally.counts["stuck"] += 1
        else:
            lines = world.record.lines()
            verdict = judge(Case(sharing.submissions, lines, {}, told, is_ordered=False))
            tally.counts, tally.wrong = verdict.counts, verdict.wrong + sharing.wrong_shares(lines)
        if tally.wrong:
            tally.wrong.append(world.last_words())
    return tally


class Sharing:
    def __init__(self, world: World, chance: random.Random, jobs: int) -> None:
        self.world = world
        self.submissions: list[Submission] = []
        self._chance = chance
        self._jobs = jobs
        self._holder = next(client for client in world.clients if client.tenant == HOLDER)
        self._tenants = [client for client in world.clients if client.tenant != HOLDER]
        counts = {client.tenant: jobs * WEIGHTS[client.tenant] / sum(WEIGHTS.values()) for client in self._tenants}
        self._early = {tenant: range(round(count * EARLY_SHARE)) for tenant, count in counts.items()}
        last = {tenant: round(count * (1 - LAST_SHARE)) for tenant, count in counts.items()}
        self._late = {tenant: range(len(self._early[tenant]), last[tenant]) for tenant in counts}
        self._last = {tenant: range(last[tenant], round(count)) for tenant, count in counts.items()}
        self._urls = [gate.url for gate in world.gates]
        self._lost_s = self._again_s = math.inf

    async def play(self) -> None:
        """Until nothing waits or runs any more. TimeoutError."""
        await self._measure()
        await self._submit_behind_holders(self._early, "early")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit(self._late))
            group.create_task(self._lose_a_gate(round(self._jobs * self._chance.uniform(0.2, 0.5))))
        await self._is_idle()
        self._again_s = time.monotonic()
        await self._submit_behind_holders(self._last, "last")
        await self._is_idle()

    async def _is_idle(self) -> None:
        for client in self.world.clients:
            await client.is_idle()

    def wrong_shares(self, lines: Sequence[Line]) -> list[str]:
        """From the loss of a gate to the end of what that was doing a tenant whose job it was sending waits, by the rule (proxy/jobs/unsettled.py):
        nobody's share is by weight then.
        """
        early = {tenant: len(numbers) for tenant, numbers in self._early.items()}
        every = {tenant: numbers.stop for tenant, numbers in self._last.items()}
        before = shares_of(lines, early, until_s=self._lost_s)
        after = shares_of(lines, every, since_s=self._again_s)
        short = [
            f"{shares.total} jobs are too few to tell" for shares in (before, after) if shares.total < self._jobs / 10
        ]
        return [*before.wrong(), *after.wrong(), *short]

    async def _measure(self) -> None:
        """Each gate knows how long such a job of each tenant takes: shares are of GPU seconds."""
        for gate in self.world.gates:
            for client in self._tenants:
                client.urls = [gate.url]
                name = f"{MEASURED}-{client.tenant}-{gate.name}"
                self.submissions.append(await client.submit(name, work(name, JOB_S), is_repeated=True))
                await client.is_idle()

    async def _submit_behind_holders(self, numbers: Mapping[str, Sequence[int]], name: str) -> None:
        """All of them wait before the first one runs."""
        self.world.record.hold.touch()
        for number in range(WINDOW):
            holder = f"{HOLDER}-{name}-{number}"
            graph = work(holder, 0.0, CUSTOM, waits=True)
            self.submissions.append(await self._holder.submit(holder, graph, is_repeated=True))
        await self._submit(numbers)
        self.world.record.hold.unlink()

    async def _submit(self, numbers: Mapping[str, Sequence[int]]) -> None:
        async with asyncio.TaskGroup() as group:
            for client in self._tenants:
                for lane in range(LANES):
                    urls = self._urls[:: 1 if lane % 2 else -1]
                    sender = Client(client.tenant, client.key, urls, client.session)
                    group.create_task(self._submit_each(sender, numbers[client.tenant][lane::LANES]))

    async def _submit_each(self, client: Client, numbers: Sequence[int]) -> None:
        for number in numbers:
            name = f"{client.tenant}-{number:03}"
            graph = work(name, JOB_S, self._chance.choice((CORE, CUSTOM)))
            self.submissions.append(await client.submit(name, graph, is_repeated=True))

    async def _lose_a_gate(self, begun: int) -> None:
        while self.world.record.begun() < begun:
            await asyncio.sleep(NAP_S)
        self._lost_s = time.monotonic()
        await self.world.kill(self.world.gates[0])
        self._urls = [self.world.gates[-1].url]
        for client in self.world.clients:
            client.urls = list(self._urls)

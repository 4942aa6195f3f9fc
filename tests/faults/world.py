"""A whole installation in processes of its own: one ComfyUI or several, one gate or several, and PostgreSQL and Redis where they share them."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from policy.rules.prompt import LAST_PLACE
from proxy.auth import key_file
from proxy.jobs.job import PERHAPS_GONE
from tests.faults.clients import Client, clients
from tests.faults.programs import ComfyUI, GateProcess, PostgreSQL, Program, Redis, postgresql_programs
from tests.faults.recording import CORE, CUSTOM, Record
from tests.faults.relay import Relay
from tests.ports import free_port

_CONFIG = """\
[server]
port = {port}
[ops]
port = 0
{upstream}
[log]
format = "text"
[jobs]
retry_interrupted = true
{jobs}
[policies.default]
allow = ["{custom}", "{core}"]
"""
WINDOW = 2
"""Of each ComfyUI, where nothing else is configured."""
GONE_AFTER_S = 1
"""Of each of several ComfyUIs."""
_LAST_LINES = 60
_LAST_DEATHS = 4
_LIMITS = """\
requests = "1000000/minute"
prompts = "1000000/minute"
uploads = "1000000/minute"
polls = "1000000/minute"
queued_jobs = 100000
"""


@dataclass
class World:
    """comfyuis: the first one first. relays: the way to each, by its name, where there are several. deaths: when each ComfyUI was killed, or cut off, or
    no gate followed it any more before, by its process id, in seconds of the machine's monotonic clock. seen, doubted: see `Case`."""

    folder: Path
    comfyuis: list[ComfyUI]
    gates: list[GateProcess]
    database: PostgreSQL | None
    record: Record
    keys: dict[str, str]
    clients: list[Client] = field(default_factory=list)
    deaths: dict[int, float] = field(default_factory=dict)
    seen: dict[int, frozenset[str]] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    relays: dict[str, Relay] = field(default_factory=dict)
    _gate_deaths: dict[int, float] = field(default_factory=dict)
    redis: Redis | None = None

    @property
    def comfyui(self) -> ComfyUI:
        return self.comfyuis[0]

    @property
    def passes(self) -> int:
        """See `Case`: what the windows of several ComfyUIs have room for."""
        return 0 if len(self.comfyuis) == 1 else WINDOW * len(self.comfyuis)

    @property
    def programs(self) -> list[Program]:
        shared = [each for each in (self.database, self.redis) if each is not None]
        return [*shared, *self.comfyuis, *self.gates]

    async def kill(self, program: Program) -> None:
        """On a busy machine it takes a second, and the second one of two is killed later: what ends meanwhile is seen by nobody."""
        if program in self.comfyuis:
            self.seen[program.lives[-1]] = self._ended()
            self.deaths[program.lives[-1]] = min(time.monotonic(), self._left_alone_s())
        elif program in self.gates:
            self._gate_deaths[program.lives[-1]] = time.monotonic()
        await program.kill()

    def _left_alone_s(self) -> float:
        """Since when no gate follows what runs: none while one has not been killed."""
        return max((self._gate_deaths.get(gate.lives[-1], math.inf) for gate in self.gates), default=math.inf)

    async def cut(self, comfyui: ComfyUI) -> None:
        """It goes on, and cannot be reached any more: for the gate as if it were killed."""
        self.seen[comfyui.lives[-1]] = self._ended()
        await self.relays[comfyui.name].cut()
        self.deaths[comfyui.lives[-1]] = time.monotonic()

    async def mend(self, comfyui: ComfyUI) -> None:
        await self.relays[comfyui.name].start()

    def _ended(self) -> frozenset[str]:
        """The jobs whose end is on the disk of the gate; none where it is in PostgreSQL."""
        if self.database is not None:
            return frozenset()
        return frozenset().union(*(gate.ended() for gate in self.gates))

    async def tried(self) -> frozenset[str]:
        """See `Case`."""
        condition = f"number >= {LAST_PLACE}"
        if len(self.comfyuis) > 1:
            condition += """ OR attempts LIKE '%"at"%"at"%'"""
        return await self._jobs(condition)

    async def given(self) -> frozenset[tuple[str, float]]:
        """What a ComfyUI was given, as PostgreSQL has it, with the number that each was given with."""
        return await self._fetch("prompt_id, number", "state IN ('dispatched', 'running')")

    async def note_doubted(self) -> None:
        """While their rows are there."""
        self.doubted |= await self._jobs(f"attempts LIKE '%{PERHAPS_GONE}%'")

    async def _jobs(self, condition: str) -> frozenset[str]:
        if self.database is None:
            return frozenset().union(*(gate.jobs(condition) for gate in self.gates))
        return frozenset(prompt_id for (prompt_id,) in await self._fetch("prompt_id", condition))

    async def _fetch(self, columns: str, condition: str) -> frozenset[tuple[Any, ...]]:
        """Of the jobs in PostgreSQL."""
        assert self.database is not None, "where gates share it"
        connection = await asyncpg.connect(self.database.url)
        try:
            found = await connection.fetch(f"SELECT {columns} FROM comfygate.jobs WHERE {condition}")
        finally:
            await connection.close()
        return frozenset(map(tuple, found))

    def check(self) -> None:
        """AssertionError when a program has ended by itself."""
        for program in self.programs:
            program.check()

    def last_words(self) -> str:
        """Of each program, and what ran last; ComfyUIs by their process ids, times of the machine's monotonic clock."""
        said = [f"--- {program.name}\n{program.last_words()}" for program in self.programs]
        ran = [f"{each.at_s:.3f} {each.life} {each.event} {each.name}" for each in self.record.lines()[-_LAST_LINES:]]
        died = [f"{at_s:.3f} {life} was killed" for life, at_s in self.deaths.items()]
        return "\n".join([*said, "--- what ran", *sorted([*ran, *died[-_LAST_DEATHS:]])])


@asynccontextmanager
async def open_world(
    weights: Mapping[str, float],
    *,
    gates: int = 1,
    comfyuis: int = 1,
    is_shared: bool = False,
    has_redis: bool = False,
    jobs: str = "",
    comfyui: str = "",
) -> AsyncIterator[World]:
    """weights: by tenant. gates, comfyuis: how many. is_shared: the database is PostgreSQL. has_redis: for limits. jobs: lines of the `[jobs]` table, and
    tables behind it. comfyui: see `ComfyUI.real`.

    Everything has ended with the block.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfygate-faults-")))
        folder.chmod(0o711)  # PostgreSQL, as another user, has a folder in it
        database = _postgresql(folder) if is_shared else None
        runners = [ComfyUI(name, folder, real=comfyui) for name in _names("comfyui", comfyuis)]
        for runner in runners:
            runner.prepare()
        redis = Redis("redis", folder) if has_redis else None
        if database is not None:
            jobs = f'database = "{database.url}"\n{jobs}'
        if redis is not None:
            jobs = f'{jobs}\n[limits]\nstorage = "{redis.url}"'
        relays = {runner.name: Relay(free_port(), runner.port) for runner in (runners if comfyuis > 1 else ())}
        running, keys = _configured(folder, _names("gate", gates), _upstream(runners, relays), weights, jobs)
        world = World(folder, runners, running, database, Record(runners[0].record), keys, relays=relays, redis=redis)
        stack.push_async_callback(_end, world)
        for relay in relays.values():
            await relay.start()
        for program in world.programs:
            await program.start()
            if program in (database, redis):
                await program.is_up()
        await asyncio.gather(*(program.is_up() for program in world.programs))
        world.clients = await stack.enter_async_context(
            clients(keys, [gate.url for gate in running], world.comfyui.guard_s)
        )
        yield world


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}-{number + 1}" for number in range(count)]


async def _end(world: World) -> None:
    for program in reversed(world.programs):
        await program.kill()
    for relay in world.relays.values():
        await relay.cut()


def _postgresql(folder: Path) -> PostgreSQL:
    programs = postgresql_programs()
    assert programs is not None, "PostgreSQL is not installed"
    database = PostgreSQL("postgresql", folder)
    database.prepare(programs)
    return database


def _configured(
    folder: Path, names: list[str], upstream: str, weights: Mapping[str, float], jobs: str
) -> tuple[list[GateProcess], dict[str, str]]:
    """Gates that know the same tenants and keys, each with a folder of its own."""
    gates = [GateProcess(name, folder) for name in names]
    tables = "".join(
        f'[tenants.{tenant}]\nlimits = "{tenant}"\n[limits.{tenant}]\nweight = {weight}\n{_LIMITS}'
        for tenant, weight in weights.items()
    )
    first = gates[0]
    for gate in gates:
        gate.config.parent.mkdir()
    first.config.write_text(
        _CONFIG.format(port=first.port, upstream=upstream, jobs=jobs, custom=CUSTOM, core=CORE) + tables,
        "utf-8",
    )
    keys = {tenant: key_file.create_key(first.config, tenant=tenant).text for tenant in weights}
    for gate in gates[1:]:
        text = first.config.read_text("utf-8").replace(f"port = {first.port}", f"port = {gate.port}", 1)
        gate.config.write_text(text, "utf-8")
    return gates, keys


def _upstream(comfyuis: Sequence[ComfyUI], relays: Mapping[str, Relay]) -> str:
    if len(comfyuis) == 1:
        return f'[upstream]\nurl = "{comfyuis[0].url}"'
    return "\n".join(
        f'[[comfyui]]\nname = "{name}"\nurl = "http://127.0.0.1:{relay.port}"\ngone_after = "{GONE_AFTER_S}s"'
        for name, relay in relays.items()
    )

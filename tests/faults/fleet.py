"""One gate before several ComfyUIs in processes of their own, and what ran on each."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from proxy.auth import key_file
from tests.faults.clients import Client, clients
from tests.faults.programs import ComfyUI, GateProcess
from tests.faults.recording import CORE, CUSTOM, MODEL, MODELS, Line, Record, work

_CONFIG = """\
[server]
port = {port}
[ops]
port = 0
[log]
format = "text"
[policies.default]
allow = ["{custom}", "{core}", "{model}"]
"""
_LIMITS = """\
requests = "1000000/minute"
prompts = "1000000/minute"
polls = "1000000/minute"
queued_jobs = 100000
"""


@dataclass
class Fleet:
    gate: GateProcess
    comfyuis: list[ComfyUI]
    record: Record
    clients: list[Client]

    def gate_cpu_s(self) -> float:
        """That the gate has taken so far."""
        times = psutil.Process(self.gate.lives[-1]).cpu_times()
        return times.user + times.system

    def lines(self, event: str) -> list[Line]:
        return [line for line in self.record.lines() if line.event == event]

    def by_comfyui(self) -> list[int]:
        """How many jobs each has begun."""
        counts = Counter(line.life for line in self.lines("begin"))
        return [sum(counts[life] for life in comfyui.lives) for comfyui in self.comfyuis]


@asynccontextmanager
async def open_fleet(count: int, weights: Mapping[str, float]) -> AsyncIterator[Fleet]:
    """weights: by tenant. Everything has ended with the block."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfygate-fleet-")))
        comfyuis = [ComfyUI(f"gpu-{number + 1}", folder) for number in range(count)]
        gate = GateProcess("gate", folder)
        gate.config.parent.mkdir()
        gate.config.write_text(_configuration(gate, comfyuis, weights), "utf-8")
        keys = {tenant: key_file.create_key(gate.config, tenant=tenant).text for tenant in weights}
        for program in (*comfyuis, gate):
            stack.push_async_callback(program.kill)
            await program.start()
        await asyncio.gather(*(program.is_up() for program in (*comfyuis, gate)))
        members = await stack.enter_async_context(clients(keys, [gate.url], gate.guard_s))
        fleet = Fleet(gate, comfyuis, Record(comfyuis[0].record), members)
        await _are_there(fleet)
        yield fleet


async def _are_there(fleet: Fleet) -> None:
    """Until the gate is connected to all of them."""
    said = ""
    while any(f"connected to ComfyUI {comfyui.name} " not in said for comfyui in fleet.comfyuis):
        fleet.gate.check()
        await asyncio.sleep(0.05)
        said = fleet.gate.log.read_text("utf-8", errors="replace") if len(fleet.comfyuis) > 1 else ""
        if len(fleet.comfyuis) == 1:
            return


def _configuration(gate: GateProcess, comfyuis: Sequence[ComfyUI], weights: Mapping[str, float]) -> str:
    tables = [f'[[comfyui]]\nname = "{comfyui.name}"\nurl = "{comfyui.url}"\n' for comfyui in comfyuis]
    tables += [
        f'[tenants.{tenant}]\nlimits = "{tenant}"\n[limits.{tenant}]\nweight = {weight}\n{_LIMITS}'
        for tenant, weight in weights.items()
    ]
    return _CONFIG.format(port=gate.port, custom=CUSTOM, core=CORE, model=MODEL) + "".join(tables)


async def submit_all(fleet: Fleet, jobs: int, seconds: float, load_seconds: float | None = None) -> None:
    """As many for each tenant, one after the other in turn. load_seconds: with models, which alternate; None: without."""
    for number in range(jobs):
        for client in fleet.clients:
            graph = work(f"{client.tenant}-{number}", seconds, CORE if load_seconds is None else MODEL)
            if load_seconds is not None:
                graph["1"]["inputs"] |= {"model_name": MODELS[number % len(MODELS)], "load_seconds": load_seconds}
            await client.submit(f"{client.tenant}-{number}", graph, is_repeated=True)


async def all_idle(fleet: Fleet) -> None:
    await asyncio.gather(*(client.is_idle() for client in fleet.clients))

"""An hour of mixed load: two tenants with jobs, uploads, sockets, reloads of the configuration, and a ComfyUI that is started anew every five minutes.

The promises: the gate's memory after minute 10 and at the end are within 5 %, no task and no descriptor is left when the clients have gone, and no call
fails but for a ComfyUI that is away. `make soak`, or `python -m bench.soak MINUTES`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from bench.soakload import Client, Outages, Tally
from proxy.auth import key_file
from tests.ports import free_port

MAX_GROWTH: Final = 0.05
_ROOT: Final = Path(__file__).resolve().parent.parent
_SAMPLE_S: Final = 10.0
_SETTLE_S: Final = 60.0
_CONFIG: Final = """\
[server]
port = 0
reconnect_grace = "1s"
[ops]
port = 0
[upstream]
url = "{upstream}"
[limits.default]
requests = "1000000/second"
prompts = "1000000/second"
uploads = "1000000/second"
queued_jobs = 1000
websockets = 1000
[limits.logins]
failures = "1000000/second"
delay = "0s"
[policies.default]
allow = ["@core-image"]
[tenants.alice]
[tenants.bob]
"""


@dataclass(frozen=True)
class Plan:
    """How long the workers work, with which pause, and what else happens meanwhile."""

    lasts: Callable[[Tally], Awaitable[None]]
    disturbs: Callable[[House, Tally], Awaitable[None]]
    pause_s: float = 0.0


@dataclass(frozen=True)
class Held:
    tasks: dict[str, int]
    descriptors: int

    def beyond(self, before: Held) -> list[str]:
        """What is held now and was not before."""
        tasks = [
            f"task {name}: {before.tasks.get(name, 0)} -> {count}"
            for name, count in self.tasks.items()
            if count > before.tasks.get(name, 0)
        ]
        grown = self.descriptors > before.descriptors
        return tasks + ([f"descriptors: {before.descriptors} -> {self.descriptors}"] if grown else [])


@dataclass
class Report:
    tally: Tally
    before: Held
    after: Held
    outages: int
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the load began, and the gate's resident bytes."""

    def leaks(self) -> list[str]:
        """What the gate still holds when its clients have gone."""
        return self.after.beyond(self.before)

    def mean_bytes(self, start_s: float, end_s: float) -> float:
        found = [size for at_s, size in self.samples if start_s <= at_s <= end_s]
        return statistics.mean(found) if found else 0.0


class House:
    """The gate, the ComfyUI that is started anew, and what the disturbances do to them."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.outages = Outages()
        self.url = self.ops_url = ""
        self._folder = folder
        self._port = free_port()
        self._comfy: asyncio.subprocess.Process | None = None
        self._gate: asyncio.subprocess.Process
        self._reloads = 0
        self.keys: dict[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[House]:
        self.config.write_text(_CONFIG.format(upstream=f"http://127.0.0.1:{self._port}"), encoding="utf-8")
        self.keys = {name: key_file.create_key(self.config, tenant=name).text for name in ("alice", "bob")}
        await self._start_comfy()
        self._gate = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.soakgate", str(self.config),
            cwd=_ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            addresses = await self._said()
            self.url, self.ops_url = addresses["public"], addresses["ops"]
            await self._wait_until_ready()
            yield self
        finally:
            for process in (self._gate, self._comfy):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()

    def rss_bytes(self) -> int:
        return int(psutil.Process(self._gate.pid).memory_info().rss)

    async def held(self) -> Held:
        assert self._gate.stdin is not None
        self._gate.stdin.write(b"\n")
        return Held(**await self._said())

    async def settled(self, like: Held | None = None) -> Held:
        """What the gate holds when nothing changes any more; where `like` is given, nothing beyond that."""
        end_s = time.monotonic() + _SETTLE_S
        last = await self.held()
        while time.monotonic() < end_s:
            await asyncio.sleep(1.0)
            now = await self.held()
            if now == last and (like is None or not now.beyond(like)):
                break
            last = now
        return last

    async def restart_comfy(self, pause_s: float = 1.0) -> None:
        self.outages.is_out = True
        self.outages.count += 1
        assert self._comfy is not None
        self._comfy.kill()
        await self._comfy.wait()
        await asyncio.sleep(pause_s)
        await self._start_comfy()
        await self._wait_until_ready()
        self.outages.is_out = False

    async def reload(self) -> None:
        """Another limit, and SIGHUP, as an operator does it."""
        self._reloads += 1
        text = self.config.read_text(encoding="utf-8")
        head, _, tail = text.partition("websockets = ")
        self.config.write_text(
            f"{head}websockets = {1000 + self._reloads}\n{tail.partition(chr(10))[2]}", encoding="utf-8"
        )
        self._gate.send_signal(signal.SIGHUP)

    async def _start_comfy(self) -> None:
        self._comfy = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "standin", "--no-frontend", "--port", str(self._port),
            "--base-directory", str(self._folder / "comfyui"),
            cwd=_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._comfy.stdout is not None
        await self._comfy.stdout.readline()

    async def _wait_until_ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.ops_url}/readyz") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.1)

    async def _said(self) -> Any:
        assert self._gate.stdout is not None
        return json.loads(await self._gate.stdout.readline())


async def soak(plan: Plan) -> Report:
    """Runs the load. The first held state is taken after each kind of work was done once, since code and pools that the first call needs are no leak."""
    with tempfile.TemporaryDirectory(prefix="comfygate-soak-") as folder:
        async with House(Path(folder)).running() as house:
            tally = Tally()
            async with AsyncExitStack() as stack:
                for client in await _clients(house, tally, stack):
                    for name, piece in client.work().items():
                        await client.do(name, piece)
            before = await house.settled()
            samples: list[tuple[float, int]] = []
            async with AsyncExitStack() as stack:
                clients = await _clients(house, tally, stack)
                background = [
                    asyncio.ensure_future(plan.disturbs(house, tally)),
                    asyncio.ensure_future(_sample(house, samples, tally)),
                    *(
                        asyncio.ensure_future(_repeat(c, n, p, plan.pause_s))
                        for c in clients
                        for n, p in c.work().items()
                    ),
                ]
                ends = asyncio.ensure_future(plan.lasts(tally))
                done, _ = await asyncio.wait({ends, *background[1:]}, return_when=asyncio.FIRST_COMPLETED)
                for task in (ends, *background):
                    task.cancel()
                await asyncio.gather(ends, *background, return_exceptions=True)
                for task in done:
                    if not task.cancelled():
                        task.result()
            return Report(tally, before, await house.settled(before), house.outages.count, samples)


async def _clients(house: House, tally: Tally, stack: AsyncExitStack) -> list[Client]:
    alice = await stack.enter_async_context(Client(house.url, "alice", house.keys["alice"], None, house.outages, tally))
    bob = await stack.enter_async_context(Client(house.url, "bob", house.keys["bob"], alice, house.outages, tally))
    return [alice, bob]


async def _repeat(client: Client, name: str, piece: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        await client.do(name, piece)
        await asyncio.sleep(pause_s)


async def _sample(house: House, samples: list[tuple[float, int]], tally: Tally) -> None:
    began_s = time.monotonic()
    while True:
        samples.append((time.monotonic() - began_s, house.rss_bytes()))
        if len(samples) % 6 == 1:
            print(_line(samples[-1], tally), flush=True)
        await asyncio.sleep(_SAMPLE_S)


def _line(sample: tuple[float, int], tally: Tally) -> str:
    return (
        f"{sample[0] / 60:5.1f} min  {sample[1] / 1024**2:6.1f} MiB  {tally.done.total()} done  "
        f"{tally.explained.total()} failed while ComfyUI was away  {tally.unexplained.total()} unexplained"
    )


def hour(minutes: float) -> Plan:
    async def lasts(tally: Tally) -> None:
        await asyncio.sleep(minutes * 60)

    async def disturbs(house: House, tally: Tally) -> None:
        while True:
            for _ in range(5):
                await asyncio.sleep(60)
                await house.reload()
            await house.restart_comfy()

    return Plan(lasts, disturbs, pause_s=0.5)


def main(minutes: float = 60.0) -> None:
    report = asyncio.run(soak(hour(minutes)))
    early = report.mean_bytes(min(9.5, minutes / 6) * 60, min(10.5, minutes / 5) * 60)
    late = report.mean_bytes((minutes - 1.0) * 60, (minutes + 1.0) * 60)
    growth = late / early - 1 if early else 0.0
    print(f"done: {dict(report.tally.done)}; ComfyUI was started anew {report.outages} times")
    print(f"failed while it was away: {dict(report.tally.explained)}")
    print(f"unexplained: {dict(report.tally.unexplained) or 'nothing'}; left behind: {report.leaks() or 'nothing'}")
    print(
        f"tasks {report.before.tasks} -> {report.after.tasks}; descriptors {report.before.descriptors} -> {report.after.descriptors}"
    )
    print(
        f"memory: {early / 1024**2:.1f} MiB early, {late / 1024**2:.1f} MiB at the end: {growth:+.1%} (promise: {MAX_GROWTH:.0%})"
    )
    if report.tally.unexplained or report.leaks() or growth > MAX_GROWTH:
        sys.exit("The promise is broken.")


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:2]))

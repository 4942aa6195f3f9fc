"""Comfy API v2 through the gate, beside comfy-api-proxy, Comfy-Org's own server of it, before the same ComfyUI: CPU of the server's process for each call,
sixteen clients at a time.

The two take turns, round by round, so that a busy machine slows both. Promises: at most 0.3 of the other's for a poll of a job that has ended, and for a
submission of 50 nodes. The stand-in takes ComfyUI's place.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from bench.processes import Program, cpu_s_of, program
from proxy.auth import key_file
from tests.v2.official import TOKEN, VERSION, running_proxy

ROUNDS: Final = 7
CLIENTS: Final = 16
"""At a time, each with a connection of its own."""
POLLS: Final = 2000
SUBMISSIONS: Final = 96
NODES: Final = 50
WINDOW: Final = 2
MAX_RATIO: Final = 0.3
_CONFIG: Final = """\
[server]
port = 0
[ops]
port = 0
[upstream]
url = "{upstream}"
[tenants.bench]
[policies.default]
allow = ["@core-image", "SlowProgress"]
[limits.default]
requests = "1000000/second"
prompts = "1000000/second"
polls = "1000000/second"
queued_jobs = 1000000
"""


@dataclass
class Server:
    """process: what answers. key: that it takes."""

    name: str
    url: str
    key: str
    process: psutil.Process

    @property
    def cpu_s(self) -> float:
        return cpu_s_of(self.process.pid)


def workflow(nodes: int, first: int = 7) -> dict[str, Any]:
    """A chain of so many nodes, without a sampler."""
    image = {"width": 16, "height": 16, "batch_size": 1, "color": first}
    graph: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": image}}
    for number in range(2, nodes):
        inputs = {"image": [str(number - 1), 0]}
        graph[str(number)] = {"class_type": "ImageInvert", "inputs": inputs}
    last = {"images": [str(nodes - 1), 0], "filename_prefix": "bench"}
    graph[str(nodes)] = {"class_type": "SaveImage", "inputs": last}
    return graph


def endless() -> dict[str, Any]:
    """Runs for longer than the measurement."""
    image = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 1}}
    slow = {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "seconds": 3600.0, "steps": 10}}
    return {"1": image, "2": slow, "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}


@asynccontextmanager
async def _servers() -> AsyncIterator[tuple[Server, Server]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        standin = ("-m", "standin", "--no-frontend", "--port", "0", "--base-directory", str(folder / "comfyui"))
        with program(*standin) as comfy:
            config = folder / "config.toml"
            config.write_text(_CONFIG.format(upstream=comfy.url), encoding="utf-8")
            key = key_file.create_key(config, tenant="bench").text
            command = ("-c", "from proxy.commands.main import main; main()", "serve", "--config", str(config))
            with program(*command, key=key, speaks_on_stderr=True) as gate:
                async with running_proxy(folder / "official", comfy.url) as url:
                    yield _of(gate), Server(f"comfy-api-proxy {VERSION}", url, TOKEN, _listener(url))


def _of(gate: Program) -> Server:
    return Server("comfygate", gate.url, gate.key, gate.process)


def _listener(url: str) -> psutil.Process:
    port = int(url.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        if any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in process.net_connections()):
            return process
    raise RuntimeError(f"nothing listens at {url}")


async def _submit(session: aiohttp.ClientSession, server: Server, color: int) -> str:
    return await _post(session, server, workflow(NODES, color))


async def _post(session: aiohttp.ClientSession, server: Server, graph: dict[str, Any]) -> str:
    headers = {"Authorization": f"Bearer {server.key}", "Idempotency-Key": str(uuid.uuid4())}
    body = {"workflow": graph}
    async with session.post(f"{server.url}/api/v2/jobs", json=body, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return str((await answer.json())["id"])


async def _poll(session: aiohttp.ClientSession, server: Server, job: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {server.key}"}
    async with session.get(f"{server.url}/api/v2/jobs/{job}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def _until_over(session: aiohttp.ClientSession, server: Server, job: str) -> None:
    while (await _poll(session, server, job))["status"] not in ("succeeded", "failed"):
        await asyncio.sleep(0.05)


async def _polls(session: aiohttp.ClientSession, server: Server, job: str) -> float:
    """Microseconds of CPU of one."""
    before = server.cpu_s
    await _at_once(lambda _: _poll(session, server, job), POLLS)
    return (server.cpu_s - before) / POLLS * 1e6


async def _submissions(session: aiohttp.ClientSession, server: Server, number: int) -> float:
    """Likewise, of jobs that wait behind one that runs."""
    before = server.cpu_s
    await _at_once(lambda index: _submit(session, server, 1 + number * SUBMISSIONS + index), SUBMISSIONS)
    return (server.cpu_s - before) / SUBMISSIONS * 1e6


async def _at_once(call: Callable[[int], Awaitable[object]], count: int) -> None:
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await call(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


async def measure() -> dict[str, dict[str, list[float]]]:
    """By work and server."""
    found: dict[str, dict[str, list[float]]] = {"GET job": {}, f"POST job, {NODES} nodes": {}}
    polls, submissions = found.values()
    async with _servers() as servers, aiohttp.ClientSession() as session:
        jobs = {server.name: await _submit(session, server, 1) for server in servers}
        for server in servers:
            await _until_over(session, server, jobs[server.name])
        for _ in range(WINDOW):  # the gate gives ComfyUI no more than these
            await _post(session, servers[0], endless())
        for number in range(-1, ROUNDS):
            for server in servers:
                figures = (
                    await _polls(session, server, jobs[server.name]),
                    await _submissions(session, server, number + 2),
                )
                if number >= 0:  # the first round warms up
                    polls.setdefault(server.name, []).append(figures[0])
                    submissions.setdefault(server.name, []).append(figures[1])
    return found


def main() -> None:
    too_much = []
    for work, by_server in asyncio.run(measure()).items():
        (name, own), (other, theirs) = by_server.items()
        ratios = sorted(a / b for a, b in zip(own, theirs, strict=True))
        ratio = statistics.median(ratios)
        print(
            f"{work}: {name} {statistics.median(own):.0f} us, {other} {statistics.median(theirs):.0f} us, "
            f"ratio {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), promised {MAX_RATIO}"
        )
        if ratio > MAX_RATIO:
            too_much.append(work)
    if too_much:
        sys.exit(f"more than {MAX_RATIO}: {', '.join(too_much)}")


if __name__ == "__main__":
    main()

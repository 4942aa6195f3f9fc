"""50,000 bad keys from 10,000 addresses against a running gate, and a good key beside them. The promises: its memory grows by less than 64 MiB,
and the good key is answered within 50 ms at the median.

The flood is a process of its own, so that what it costs is not taken for the gate's slowness.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bench import processes
from bench.processes import Program
from proxy.auth.api_keys import generate_key

KEYS: Final = 50_000
ADDRESSES: Final = 10_000
WIDTH: Final = 800
"""Connections of the flood: more than the gate slows down at once, so that refusals are seen as well."""
MAX_MEDIAN_MS: Final = 50.0
MAX_GROWTH_BYTES: Final = 64 * 1024**2
_ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figures:
    """growth_bytes: of the gate's resident size at its largest. waits_ms: of the good key while the flood lasted."""

    growth_bytes: int
    waits_ms: list[float]
    flood_s: float
    flood_said: str


async def flood(url: str, count: int) -> Counter[int]:
    """Sends that many different bad keys, each from one of 10,000 addresses; gives the answers by status."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(count))

    async def sender(session: aiohttp.ClientSession, given: Iterator[int]) -> None:
        for number in given:
            address = number % ADDRESSES
            headers = {
                "Authorization": f"Bearer {generate_key()[1]}",
                "CF-Connecting-IP": f"198.18.{address >> 8}.{address & 255}",
            }
            async with session.get(f"{url}/queue", headers=headers) as answer:
                await answer.read()
                statuses[answer.status] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(sender(session, numbers) for _ in range(WIDTH)))
    return statuses


def flood_and_tell(url: str, count: int) -> None:
    """What the flood's own process runs."""
    statuses = asyncio.run(flood(url, count))
    print(", ".join(f"{number} times {status}" for status, number in sorted(statuses.items())))


async def _measure(gate: Program, count: int) -> Figures:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {gate.key}"}) as session:
        for _ in range(200):
            await _ask(session, gate)
        before = largest = gate.rss_bytes
        began_s = time.perf_counter()
        command = (
            sys.executable,
            "-c",
            f"from bench.flood import flood_and_tell; flood_and_tell({gate.url!r}, {count})",
        )
        flooding = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
        waits_ms = []
        with flooding:
            try:
                while flooding.poll() is None:
                    waits_ms.append(await _ask(session, gate))
                    largest = max(largest, gate.rss_bytes)
                    await asyncio.sleep(0.01)
                said = flooding.stdout.read() if flooding.stdout is not None else ""
            finally:
                flooding.kill()
        if flooding.returncode:
            raise RuntimeError(f"the flood ended with {flooding.returncode}")
        return Figures(largest - before, waits_ms, time.perf_counter() - began_s, said.strip())


async def _ask(session: aiohttp.ClientSession, gate: Program) -> float:
    """Milliseconds of one request with the good key."""
    began_s = time.perf_counter()
    async with session.get(f"{gate.url}/queue") as answer:
        await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the good key was answered {answer.status}")
    return (time.perf_counter() - began_s) * 1000


def measure(count: int) -> Figures:
    with processes.endpoint() as upstream, processes.gate(upstream.url) as gate:
        return asyncio.run(_measure(gate, count))


def main() -> None:
    found = measure(KEYS)
    median_ms = statistics.median(found.waits_ms)
    print(f"{KEYS} bad keys from {ADDRESSES} addresses in {found.flood_s:.0f} s: {found.flood_said}")
    print(f"the gate's memory grew by {found.growth_bytes / 1024**2:.1f} MiB (promise: {MAX_GROWTH_BYTES // 1024**2})")
    print(
        f"a good key waited {median_ms:.1f} ms at the median (promise: {MAX_MEDIAN_MS:.0f}), "
        f"{max(found.waits_ms):.0f} ms at most, {len(found.waits_ms)} requests"
    )
    if median_ms >= MAX_MEDIAN_MS or found.growth_bytes >= MAX_GROWTH_BYTES:
        sys.exit("The promise is broken.")


if __name__ == "__main__":
    main()

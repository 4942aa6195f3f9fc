"""What forwarding a small request costs: CPU time of the gate per request, beside that of a naive proxy in the same run."""

from __future__ import annotations

import asyncio
import statistics
from typing import Final

import aiohttp

from bench import processes
from bench.processes import Program

REQUESTS: Final = 3000
ROUNDS: Final = 5
_AT_ONCE: Final = 16


def main() -> None:
    with (
        processes.endpoint() as upstream,
        processes.gate(upstream.url) as gate,
        processes.program("-m", "bench.naive", upstream.url) as naive,
    ):
        asyncio.run(_compare(gate, naive))


async def _compare(gate: Program, naive: Program) -> None:
    """Rounds alternate, so that a busy machine burdens both; the medians are compared."""
    figures: dict[str, list[float]] = {"gate": [], "naive": []}
    await _load(gate), await _load(naive)
    for _ in range(ROUNDS):
        figures["gate"].append(await _load(gate))
        figures["naive"].append(await _load(naive))
    medians = {name: statistics.median(rounds) for name, rounds in figures.items()}
    for name, median in medians.items():
        print(
            f"{name:>6}: {median:6.1f} µs CPU per request (best {min(figures[name]):.1f}, worst {max(figures[name]):.1f})"
        )
    print(f" ratio: {medians['gate'] / medians['naive']:.2f}")


async def _load(program: Program) -> float:
    """CPU µs per request of the program."""
    headers = {"Authorization": f"Bearer {program.key}"} if program.key else {}
    connector = aiohttp.TCPConnector(limit=_AT_ONCE)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        before_s = program.cpu_s
        await asyncio.gather(*(_worker(session, program.url) for _ in range(_AT_ONCE)))
        return (program.cpu_s - before_s) / (REQUESTS // _AT_ONCE * _AT_ONCE) * 1e6


async def _worker(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(REQUESTS // _AT_ONCE):
        async with session.get(f"{url}/features") as response:
            await response.read()
            response.raise_for_status()


if __name__ == "__main__":
    main()

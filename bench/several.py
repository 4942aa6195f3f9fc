"""Several ComfyUIs behind one gate: how long they take for many jobs beside the ideal time, what shares the tenants have, what a job costs the gate,
and how often models are loaded. `python -m bench several`, about ten minutes; the figures are ratios in one run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.faults.fleet import all_idle, open_fleet, submit_all
from tests.faults.recording import Line

WEIGHTS: Final = {"ann": 1.0, "bob": 2.0, "cy": 1.0}
JOBS: Final = 400
JOB_S: Final = 1.0
MOST: Final = 1.08
"""Times the ideal time."""
LOADS: Final = 4
MODEL_JOBS: Final = 200


class Run(NamedTuple):
    """took_s: from the first beginning to the last end. cpu_ms: of the gate, for each job. ran: how many each ComfyUI did."""

    took_s: float
    cpu_ms: float
    ran: list[int]
    shares: str


async def _work_off(count: int, jobs: int) -> Run:
    async with open_fleet(count, WEIGHTS) as fleet:
        # So that it is known how long such a job takes: shares are of GPU seconds.
        await submit_all(fleet, 1, JOB_S)
        await all_idle(fleet)
        before_s, measured = fleet.gate_cpu_s(), len(WEIGHTS)
        await submit_all(fleet, jobs // len(WEIGHTS), JOB_S)
        await all_idle(fleet)
        begun = fleet.lines("begin")[measured:]
        took_s = fleet.lines("end")[-1].at_s - begun[0].at_s
        cpu_ms = 1000 * (fleet.gate_cpu_s() - before_s) / jobs
        return Run(took_s, cpu_ms, fleet.by_comfyui(), _shares(begun))


def _shares(lines: Sequence[Line]) -> str:
    """While all of them waited."""
    begun = [line.name.partition("-")[0] for line in lines]
    left, counted = Counter(begun), Counter[str]()
    for tenant in begun:
        counted[tenant] += 1
        left[tenant] -= 1
        if not left[tenant]:
            break
    total = sum(counted.values())
    return ", ".join(
        f"{tenant} {counted[tenant] / total:.2f} of {weight / sum(WEIGHTS.values()):.2f}"
        for tenant, weight in WEIGHTS.items()
    )


async def _capacity() -> bool:
    is_kept = True
    one_per_s, one_ms = 0.0, 0.0
    for count in (1, 2, 4, 8):
        jobs = (JOBS if count > 1 else JOBS // 4) // len(WEIGHTS) * len(WEIGHTS)
        run = await _work_off(count, jobs)
        ideal_s, per_s = jobs * JOB_S / count, jobs / run.took_s
        one_per_s, one_ms = one_per_s or per_s, one_ms or run.cpu_ms
        print(
            f"{count} ComfyUIs, {jobs} jobs: {run.took_s:.1f} s, {run.took_s / ideal_s:.3f} of the ideal time; "
            f"{per_s / one_per_s:.2f} times as many a second as one; "
            f"{run.cpu_ms:.1f} ms of the gate's CPU for each job, {run.cpu_ms / one_ms:.2f} of one's; each ran {run.ran}; shares: {run.shares}",
            flush=True,
        )
        is_kept &= count not in (2, 4) or run.took_s <= MOST * ideal_s
    return is_kept


async def _models() -> bool:
    async with open_fleet(2, {"ann": 1.0}) as fleet:
        began_s = time.monotonic()
        await submit_all(fleet, MODEL_JOBS, 0.2, load_seconds=10.0)
        await all_idle(fleet)
        loads = len(fleet.lines("load"))
        print(
            f"two models in turn, {MODEL_JOBS} jobs of 0.2 s on two ComfyUIs that take 10 s to load one: {loads} loads, {time.monotonic() - began_s:.0f} s",
            flush=True,
        )
        return loads <= LOADS


async def _all() -> bool:
    is_kept = await _capacity()
    return await _models() and is_kept


def main() -> None:
    if not asyncio.run(_all()):
        sys.exit(1)

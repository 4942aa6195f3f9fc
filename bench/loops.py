"""What the probes of event loops saw (bench/probed.py): asked for, printed, and compared with what is promised."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any, Final

from bench.processes import Program

LATE_P99_S: Final = 0.01
LATE_LONGEST_S: Final = 0.05
STEP_S: Final = 0.03
"""Of CPU time, in which the loop does nothing else."""


async def figures(watched: Program, file: Path) -> dict[str, Any]:
    """What a probed program saw since it was last asked."""
    file.unlink(missing_ok=True)
    watched.process.send_signal(signal.SIGUSR1)
    while not file.exists():
        await asyncio.sleep(0.01)
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def machine_s(seen: dict[str, Any]) -> float:
    """How long the loop was ready and had no processor, at the 99th percentile."""
    return float(seen["lag_p99_s"] - seen["own_lag_p99_s"])


def tell(name: str, seen: dict[str, Any], *, promises: bool) -> list[str]:
    """Prints one loop's figures; the broken promises, where it makes some."""
    share = 100 / seen["seconds"]
    print(
        f"{name:15} late: p99 {seen['lag_p99_s'] * 1000:6.1f} ms, longest {seen['lag_longest_s'] * 1000:6.1f} ms"
        f"   without the machine: p99 {seen['own_lag_p99_s'] * 1000:6.1f} ms, longest {seen['own_lag_longest_s'] * 1000:6.1f} ms"
        f"   CPU: loop {seen['loop_cpu_s'] * share:3.0f} %, threads {seen['threads_cpu_s'] * share:3.0f} %"
    )
    kinds = sorted(seen["kinds"].items(), key=lambda kind: -kind[1][1])
    for kind, (steps, cpu_s, longest_s, longest_cpu_s) in kinds[:8]:
        print(
            f"  {kind:24} {steps:7} steps, {cpu_s:6.2f} s of CPU, longest {longest_cpu_s * 1000:6.1f} ms of CPU ({longest_s * 1000:6.1f} ms)"
        )
    step_s = max((float(kind[3]) for kind in seen["kinds"].values()), default=0.0)
    bounds = (
        ("was late at the 99th percentile by", float(seen["own_lag_p99_s"]), LATE_P99_S),
        ("was late once by", float(seen["own_lag_longest_s"]), LATE_LONGEST_S),
        ("did one step of", step_s, STEP_S),
    )
    found = [
        f"{name} {words} {value * 1000:.1f} ms, which is more than {bound * 1000:.0f} ms"
        for words, value, bound in bounds
        if value > bound
    ]
    return found if promises else []

"""What whole requests cost through the gate, beside a naive aiohttp proxy and nginx: each a process of its own before the same upstream, in turns.

`make bench`, or `python -m bench whole [--only ROW] [--profile]`. CPU is that of the whole process, so a busy machine changes it little; times on the
clock (latency, start) need a quiet one. Ends in one table: figure, ratio, budget, met or not.
"""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> None:
    """Imported late: the processes that are measured are modules of this package too."""
    from bench.whole.run import main as run

    run(arguments or [])

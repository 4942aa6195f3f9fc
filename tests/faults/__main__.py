"""`make faults`: many rounds of each fault, two gates, and a table. The seed that is printed makes the same rounds again."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence

from tests.faults import rolling, sharing, webhooks
from tests.faults.programs import COMMAND
from tests.faults.rolling import COMFYUIS as ROLLINGS
from tests.faults.rounds import FAULTS, SEVERAL, Tally, play
from tests.faults.webhooks import TWO_GATES, WEBHOOKS

GATES = "two gates"
COLUMNS = ("rounds", "jobs", "not accepted", "retried", "failed by rule", "lost", "doubled", "out of order", "stuck")


def table(tallies: Sequence[Tally]) -> str:
    width = max(len(tally.fault) for tally in tallies)
    rows = [" | ".join(("fault".ljust(width), *COLUMNS))]
    for tally in tallies:
        counts = {**tally.counts, "rounds": tally.rounds}
        rows.append(
            " | ".join((tally.fault.ljust(width), *(str(counts.get(each, 0)).rjust(len(each)) for each in COLUMNS)))
        )
    return "\n".join(rows)


async def run(options: argparse.Namespace) -> list[Tally]:
    tallies = []
    for fault in options.only or (*FAULTS, *SEVERAL, GATES, *ROLLINGS, WEBHOOKS, TWO_GATES):
        if fault == GATES:
            tallies.append(await sharing.play(options.jobs, options.seed))
        elif fault in ROLLINGS:
            tallies.append(await rolling.play(fault, options.jobs // 10, options.seed, comfyui=options.comfyui))
        elif fault == WEBHOOKS:
            tallies.append(await webhooks.play(options.rounds, options.seed, is_shared=options.shared))
        elif fault == TWO_GATES:
            tallies.append(await webhooks.play(options.rounds, options.seed, gates=2))
        else:
            tallies.append(
                await play(fault, options.rounds, options.seed, is_shared=options.shared, comfyui=options.comfyui)
            )
        print(f"{fault}: {tallies[-1].rounds} rounds, {len(tallies[-1].wrong)} sentences", flush=True)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=100, help="of each fault")
    parser.add_argument("--jobs", type=int, default=1000, help=f"of {GATES!r}; a tenth of them of rolling restarts")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument(
        "--only",
        action="append",
        choices=(*FAULTS, *SEVERAL, GATES, *ROLLINGS, WEBHOOKS, TWO_GATES),
        help="this fault; may be given several times",
    )
    parser.add_argument("--shared", action="store_true", help="PostgreSQL is the database in all rounds")
    parser.add_argument(
        "--comfyui",
        default=COMMAND,
        help="of a real one, as: python main.py --port {port} --base-directory {folder}; else COMFYUI_COMMAND",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends this ends the programs too
    print(f"seed {options.seed}", flush=True)
    tallies = asyncio.run(run(options))
    print(table(tallies))
    wrong = [each for tally in tallies for each in tally.wrong]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

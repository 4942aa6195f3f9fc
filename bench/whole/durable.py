"""What the disk costs: a gate whose database lies on it beside one whose database lies in memory, in the same run and with every commit."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.whole import documents, programs
from bench.whole.client import ask, load, request
from bench.whole.figures import Budget, Figure, compare
from bench.whole.jobs import PROMPT_COUNTS, submits, until_waiting
from bench.whole.programs import Subject
from bench.whole.rounds import micro, quiet
from bench.whole.rows import Run

MEMORY: Final = Path("/dev/shm")
ON_DISK: Final = "gate"
IN_MEMORY: Final = "gate in memory"
BUDGET: Final = Budget(1.15, 1.05)
_CLOCK_COUNT: Final = 40


async def durable(run: Run) -> list[Figure]:
    """Nothing where no folder in memory is known."""
    if not MEMORY.is_dir():
        return []
    figures = []
    with ExitStack() as stack:
        stubs, subjects = {}, []
        # Where the repository lies, since a folder for temporary files may be in memory too.
        for name, parent in ((ON_DISK, Path.cwd()), (IN_MEMORY, MEMORY)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
            stubs[name] = stack.enter_context(programs.stub(run.object_info))
            subjects.append(stack.enter_context(programs.gate(stubs[name].url, name, run.profile, state=folder)))

        async def clear(subject: Subject) -> None:
            # Those that wait in the gate first: else it would give them all to ComfyUI, one after the other.
            await ask(subject, "POST", "/queue", b'{"clear": true}')
            await ask(stubs[subject.name], "POST", "/bench/clear")
            await until_waiting(subject, 0)
            await quiet(subject)

        for nodes in PROMPT_COUNTS:
            title = f"POST /prompt, {nodes} nodes, on disk"
            rounds = micro(
                await run.measure(subjects, submits(nodes, PROMPT_COUNTS[nodes]), until_quiet=True, after=clear)
            )
            figures.append(compare(title, "µs CPU", rounds, BUDGET, of=IN_MEMORY, note="of the same in memory"))
        waited: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        for number in range(run.rounds):
            for subject in subjects if number % 2 else reversed(subjects):
                waited[subject.name].append(await _median_us(subject))
                await clear(subject)
    note = "of the same in memory, on the clock, one at a time"
    figures.append(compare("POST /prompt, 7 nodes, until it is answered", "µs", waited, of=IN_MEMORY, note=note))
    return figures


async def _median_us(subject: Subject) -> float:
    """On the clock, of one connection."""
    wanted = [request(subject, "POST", "/prompt", body) for body in documents.prompts(7, "bench-client", _CLOCK_COUNT)]
    return statistics.median((await load(subject, wanted, 1)).times_s) * 1e6

"""Rounds in which the subjects take turns, and what each used meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from bench.whole.figures import Rounds
from bench.whole.programs import Subject

QUIET_S: Final = 0.05
_IDLE_SHARE: Final = 0.03
Work = Callable[[Subject], Awaitable[float]]
"""Loads a subject; how many operations that were."""


async def take_turns(
    subjects: Sequence[Subject],
    work: Work,
    rounds: int,
    *,
    until_quiet: bool = False,
    after: Callable[[Subject], Awaitable[None]] | None = None,
) -> dict[str, list[float]]:
    """CPU seconds per operation, by subject and round; a first round of each is not counted.

    until_quiet: also what the subject does after its last answer. after: not counted.
    """
    measured: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(rounds + 1):
        for subject in subjects if number % 2 else reversed(subjects):
            before_s = subject.cpu_s
            count = await work(subject)
            if until_quiet:
                await quiet(subject)
            used_s = subject.cpu_s - before_s
            if after is not None:
                await after(subject)
            if number:
                measured[subject.name].append(used_s / count)
    return measured


async def quiet(subject: Subject) -> None:
    """Until the process does nothing worth mentioning."""
    calm = 0
    while calm < 2:
        before_s = subject.cpu_s
        await asyncio.sleep(QUIET_S)
        calm = calm + 1 if subject.cpu_s - before_s < QUIET_S * _IDLE_SHARE else 0


async def profile(subject: Subject, work: Work, file: Path) -> str:
    """What takes the time in a gate of bench.whole.profiled."""
    await work(subject)
    os.kill(subject.pid, signal.SIGUSR1)
    await asyncio.sleep(0.1)
    await work(subject)
    await quiet(subject)
    os.kill(subject.pid, signal.SIGUSR1)
    while not file.exists() or not file.stat().st_size:
        await asyncio.sleep(0.05)
    await quiet(subject)
    return file.read_text(encoding="utf-8")


def micro(measured: Rounds) -> dict[str, list[float]]:
    return {name: [value * 1e6 for value in values] for name, values in measured.items()}

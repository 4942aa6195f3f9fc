"""`comfygate jobs drain`: no jobs for ComfyUI, or for one of several, until it has none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from proxy.commands.exits import fail
from proxy.commands.gate_database import until
from proxy.commands.terminal import printable, progress_line
from proxy.config.reader import Config
from proxy.jobs.job_rows import StoredState
from proxy.jobs.operator_operations import Load, load
from proxy.jobs.store_upkeep import drain, drain_one
from proxy.persistence.operations import Database

DRAINED: Final = "No job is given to ComfyUI, until `comfygate jobs drain --off`."


def drained_note(comfyui: str | None) -> str:
    """comfyui: one of several; None for all."""
    if comfyui is None:
        return DRAINED
    name = printable(comfyui)
    return f"No job is given to {name}, until `comfygate jobs drain --comfyui {name} --off`."


def drained_notes(found: Load, config: Config) -> list[str]:
    """What is drained, of what the configuration has."""
    names = names_of(config)
    notes = [DRAINED] if found.is_draining else []
    if len(names) > 1:  # with one no gate looks for its name
        notes += [drained_note(name) for name in names if name in found.drained]
    return notes


def names_of(config: Config) -> list[str]:
    return [comfyui.name for comfyui in config.comfyuis]


async def drain_comfyui(database: Database, config: Config, comfyui: str | None, wait_s: float) -> Load:
    """What it has when it has nothing, or the time is over, which is told meanwhile. comfyui: one of several; None for all."""
    names = names_of(config)
    if comfyui is None:
        await database.run(drain, is_on=True)
    else:
        _check_name(comfyui, names)
        await database.run(drain_one, comfyui, is_on=True)

    async def look() -> Load:
        found = await database.read(load)
        return found if comfyui is None else found.of(comfyui, names)

    with progress_line() as tell:

        def is_empty(found: Load) -> bool:
            tell(what_is_left(found, comfyui or "ComfyUI"))
            return not found.given

        return await until(database, look, is_empty, wait_s)


async def end_draining(database: Database, config: Config, comfyui: str | None) -> list[str]:
    """What is to be said of it. One that the configuration has no more can be named, too."""
    if comfyui is None:
        await database.run(drain, is_on=False)
    else:
        if comfyui not in (await database.read(load)).drained:
            _check_name(comfyui, names_of(config))
        await database.run(drain_one, comfyui, is_on=False)
    again = f"Jobs are given to {printable(comfyui or 'ComfyUI')} again."
    still = drained_notes(await database.read(load), config)
    return [again, *still] if comfyui is None or DRAINED not in still else still


def _check_name(comfyui: str, names: Sequence[str]) -> None:
    if len(names) == 1:
        fail("There is one ComfyUI: leave --comfyui out.")
    if comfyui not in names:
        fail(f"There is no ComfyUI {printable(comfyui)!r}. There are {', '.join(names)}.")


def what_is_left(found: Load, comfyui: str = "ComfyUI") -> str:
    left = len(found.given)
    running = sum(job.state == StoredState.RUNNING for job in found.given)
    alone = sum(job.lease_until_s < time.time() for job in found.given)
    text = f"{comfyui} has {count_jobs(left)}, {running} of them running; {that_wait(found)}"
    return text + (f"; no gate follows {alone}: start it, and it sees how they end" if alone else "")


def that_wait(found: Load) -> str:
    return f"{count_jobs(found.waiting)} {'waits' if found.waiting == 1 else 'wait'} in the gate"


def count_jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"

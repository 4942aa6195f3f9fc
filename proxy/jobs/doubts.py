"""Jobs that ComfyUI was sent and did not answer: their clients are told so, and nobody follows them until it is known whether ComfyUI has them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from proxy.jobs.job import PERHAPS_GONE, Job
from proxy.jobs.registry import JobRegistry
from proxy.jobs.store_upkeep import drop_wished, give_up_wished, wish
from proxy.persistence.operations import Database

UNSURE: Final = "unsure"
"""The wish of a row whose submission got no answer: nobody was told that the job is there, so it is dropped when ComfyUI has none."""


class JobDoubts:
    """gate: the name of this one. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database, registry: JobRegistry, gate: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._registry = registry
        self._gate = gate
        self._clock = clock

    async def note(self, prompt_id: str) -> None:
        """It comes back when ComfyUI turns out to have it."""
        await self._database.run(wish, prompt_id, UNSURE)

    async def drop(self, before_s: float, has: Collection[str]) -> None:
        """Of those that were submitted before a time (Unix seconds): what ComfyUI has not. has: its queue and history since then."""
        await self._database.run(drop_wished, UNSURE, before_s, has)

    async def give_up(self, comfyui: str) -> list[Job]:
        """Nobody finds out, since this ComfyUI is gone: those that wait again now, because their clients may ask after them."""
        rows = await self._database.run(give_up_wished, UNSURE, self._gate, comfyui, self._clock(), PERHAPS_GONE)
        return [self._registry.apply(row) for row in rows]

"""Gives ComfyUI its next jobs: as many as its window has room for, in the fair order, each once. With several ComfyUIs each gets those that it fits best."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from proxy.jobs.job_rows import Given
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.sender import TRY_AGAIN_S, Sender
from proxy.persistence.operations import DatabaseUnavailable
from proxy.tasks import Tasks

LOOK_EACH_S: Final = 1.0
"""Something is announced whenever there may be room; this is for what was not."""

_log = logging.getLogger("comfygate")

GiveTo = Callable[[Sequence[str]], Awaitable[list[Given]]]
"""Chooses for the ComfyUIs of these names, and records it. Raises DatabaseUnavailable."""


class Dispatcher:
    """senders: one for each ComfyUI, replaced when some come or go. has_room: whether one of them may have any, as far as is known in memory."""

    def __init__(
        self,
        senders: Sequence[Sender],
        registry: JobRegistry,
        records: JobRecords,
        replica: JobReplica,
        give: GiveTo,
        has_room: Callable[[], bool],
    ) -> None:
        self.senders = senders
        self._registry = registry
        self._records = records
        self._replica = replica
        self._give = give
        self._has_room = has_room
        self._tasks = Tasks()
        self._is_wanted = asyncio.Event()
        self.is_giving = False
        """It is about to be known who is given what."""

    async def stop(self) -> None:
        await self._tasks.stop()
        for sender in self.senders:
            await sender.stop()

    def brings_for(self, comfyui: str) -> frozenset[str]:
        """Tenants for whose jobs files are brought to the ComfyUI of this name."""
        return frozenset[str]().union(*(sender.brings_for for sender in self.senders if sender.comfyui == comfyui))

    def wake(self) -> None:
        """There may be room, or somebody who waits. Who knows of both at once does not ask the database."""
        if self._registry.tally.waiting and self._has_room():
            self._is_wanted.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_EACH_S):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass
            self._is_wanted.clear()
            try:
                await self.dispatch()
            except DatabaseUnavailable as error:
                _log.warning("jobs wait until the database can be used again: %s", error)
                await asyncio.sleep(TRY_AGAIN_S)

    async def dispatch(self) -> None:
        """Raises DatabaseUnavailable."""
        if self._records.is_uncertain:
            await self._replica.recover()
        ready = {sender.comfyui: sender for sender in self.senders if sender.is_ready}
        if not ready or not self._registry.tally.waiting:
            return
        batches: dict[str, list[Given]] = {}
        self.is_giving = True
        try:
            for given in await self._give(list(ready)):
                batches.setdefault(given.job.comfyui, []).append(given)
            for comfyui in batches:
                ready[comfyui].begin()
        finally:
            self.is_giving = False
        if len(self.senders) == 1:
            for comfyui, batch in batches.items():
                await ready[comfyui].send_all(batch)
            return
        for comfyui, batch in batches.items():  # the others do not wait for one that is slow
            self._tasks.start(self._send(ready[comfyui], batch), "jobs to a ComfyUI")

    async def _send(self, sender: Sender, batch: Sequence[Given]) -> None:
        try:
            await sender.send_all(batch)
        except DatabaseUnavailable as error:
            _log.warning("jobs wait until the database can be used again: %s", error)
            self._records.is_uncertain = True
        self.wake()


def dispatcher_of_one(sender: Sender, registry: JobRegistry, records: JobRecords, replica: JobReplica) -> Dispatcher:
    """Where there is one ComfyUI."""

    async def give(ready: Sequence[str]) -> list[Given]:
        return await records.give()

    def has_room() -> bool:
        return len(registry.tally.given) < records.window()

    return Dispatcher((sender,), registry, records, replica, give, has_room)

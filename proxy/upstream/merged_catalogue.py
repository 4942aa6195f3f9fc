"""What several ComfyUIs can run, as one catalogue: the union of what each of them said last.

One that is away keeps its part: a job is not refused since the ComfyUI that runs it restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from policy.merging import Merged, merge
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.memory import give_back_memory
from proxy.tasks import Tasks
from proxy.upstream.node_catalogue import FRESH_S, PATIENCE_S, CatalogueSource, Snapshot

PASSED_OVER_S: Final = 60.0
"""How long nobody waits for a ComfyUI that did not answer in time: a machine that is off answers nothing at all."""
LOOK_EACH_S: Final = 60.0
"""ComfyUI serves nothing else for 200 ms each time."""

_Failure = UpstreamUnavailable | UpstreamTimeout


class MergedCatalogue:
    """The newest union. parts: by name, the first one first. Like a CatalogueSource, which there is where there is one ComfyUI."""

    def __init__(self, parts: Mapping[str, CatalogueSource]) -> None:
        self.parts = parts
        self.snapshot = Snapshot()
        self._lock = asyncio.Lock()
        self._tasks = Tasks()
        self._first_read: asyncio.Task[_Failure | None] | None = None
        self._passed_over: dict[str, float] = {}

    async def fresh(self) -> Snapshot:
        """As `CatalogueSource.fresh`. Nobody waits for those that never said anything."""
        await self.known()
        await asyncio.gather(*map(self._refresh, self.parts))
        await self._merge()
        return self.snapshot

    async def known(self) -> Snapshot:
        """As `CatalogueSource.known`: all are waited for a while, then the first that answers. Raises what the first one did when none does."""
        if not self.snapshot.is_known:
            if self._first_read is None or self._first_read.done():
                self._first_read = self._tasks.start(self._read_first(), "catalogues")
            await asyncio.wait((self._first_read,))
            if (failure := self._first_read.result()) is not None:
                raise failure
        return self.snapshot

    async def renew(self, comfyui: str = "") -> None:
        """Reads one of them again now, for one that was restarted; all of them where none is named.

        Raises UpstreamUnavailable or UpstreamTimeout when it never said anything.
        """
        for name in (comfyui,) if comfyui else self.parts:
            self._passed_over.pop(name, None)
            await self.parts[name].renew()
        await self._merge()

    async def keep_fresh(self, is_wanted: Callable[[], bool]) -> None:
        """Looks now and then whether a ComfyUI has got what it had not: a job may wait for a model that somebody puts there."""
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            if is_wanted():
                with suppress(UpstreamUnavailable, UpstreamTimeout):
                    await self.fresh()

    async def stop(self) -> None:
        await self._tasks.stop()
        for part in self.parts.values():
            await part.stop()

    async def _refresh(self, name: str) -> None:
        asked_s, part = time.monotonic(), self.parts[name]
        if asked_s < self._passed_over.get(name, 0.0):
            return
        if not part.snapshot.is_known:
            self._passed_over[name] = asked_s + PASSED_OVER_S
            self._tasks.start(self._read(part), "catalogue")
        elif (await part.fresh()).read_at_s < asked_s - FRESH_S:
            self._passed_over[name] = time.monotonic() + PASSED_OVER_S

    async def _read_first(self) -> _Failure | None:
        """Why nothing is known, of the first one."""
        reads = [self._tasks.start(self._read(part), "catalogue") for part in self.parts.values()]
        waiting = set(reads)
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=PATIENCE_S)
        while waiting and not self.snapshot.is_known:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return None if self.snapshot.is_known else reads[0].result()

    async def _read(self, part: CatalogueSource) -> _Failure | None:
        try:
            await part.known()
        except (UpstreamUnavailable, UpstreamTimeout) as failure:
            return failure
        await self._merge()
        return None

    async def _merge(self) -> None:
        """Anew where one of them said something else."""
        async with self._lock:
            found = {name: part.snapshot for name, part in self.parts.items() if part.snapshot.is_known}
            version = " ".join(f"{name}={snapshot.version}" for name, snapshot in found.items())
            if not found or version == self.snapshot.version:
                return
            is_whole = len(found) == len(self.parts)
            merged = await asyncio.to_thread(_merge, list(found.values()), is_whole=is_whole)
            for (name, snapshot), shared in zip(found.items(), merged.parts, strict=True):
                part = self.parts[name]
                if part.snapshot.catalogue is snapshot.catalogue:
                    part.snapshot = replace(part.snapshot, catalogue=shared)
            self.snapshot = Snapshot(merged.catalogue, version, time.monotonic())


def _merge(snapshots: list[Snapshot], *, is_whole: bool) -> Merged:
    merged = merge([snapshot.catalogue for snapshot in snapshots], is_whole=is_whole)
    give_back_memory()
    return merged

"""What several ComfyUIs can run, as one catalogue: the union of what each of them said last, and of some of them for tenants that may not use all.

One that is away keeps its part: a job is not refused since the ComfyUI that runs it restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from policy.catalogue import Catalogue
from policy.merging import Merged, merge, merge_some
from proxy.http.errors import UpstreamTimeout, UpstreamUnavailable
from proxy.memory import give_back_memory
from proxy.tasks import Tasks
from proxy.upstream.node_catalogue import FRESH_S, PATIENCE_S, CatalogueSource, Snapshot

PASSED_OVER_S: Final = 60.0
"""How long nobody waits for a ComfyUI that did not answer in time: a machine that is off answers nothing at all."""
LOOK_EACH_S: Final = 60.0
"""ComfyUI serves nothing else for 200 ms each time."""
MAX_PARTIAL: Final = 64
"""Sets of ComfyUIs whose union is kept: as many as the configuration makes of them, unless those are very many. Texts are shared by all."""

_Failure = UpstreamUnavailable | UpstreamTimeout


class MergedCatalogue:
    """The newest union. parts: by name, the first one first. Like a CatalogueSource, which there is where there is one ComfyUI."""

    def __init__(self, parts: Mapping[str, CatalogueSource]) -> None:
        self.parts = parts
        self.snapshot = Snapshot()
        self._made_of = frozenset[str]()
        """Whose parts the union has."""
        self._lock = asyncio.Lock()
        self._tasks = Tasks()
        self._first_reads: dict[tuple[str, ...], asyncio.Task[_Failure | None]] = {}
        self._partial: OrderedDict[tuple[str, ...], PartialCatalogue] = OrderedDict()
        self._passed_over: dict[str, float] = {}

    def among(self, names: tuple[str, ...]) -> MergedCatalogue | PartialCatalogue:
        """Of those of these names alone, in the order of `parts`.

        SECURITY: the union has what one had that has gone until one of the others says something, and others than its tenants never saw that
        (tests/several/test_catalogues.py::test_what_one_had_that_has_gone_is_shown_to_nobody_else).
        """
        if len(names) == len(self.parts) and self._made_of.issubset(names):
            return self
        found = self._partial.get(names)
        if found is None:
            found = self._partial[names] = PartialCatalogue(self, names)
            if len(self._partial) > MAX_PARTIAL:
                self._partial.popitem(last=False)
        self._partial.move_to_end(names)
        return found

    def of(self, names: tuple[str, ...]) -> list[CatalogueSource]:
        """Those of these names that have not gone meanwhile."""
        return [self.parts[name] for name in names if name in self.parts]

    async def fresh(self) -> Snapshot:
        """As `CatalogueSource.fresh`. Nobody waits for those that never said anything."""
        await self.known()
        await self.refresh(tuple(self.parts))
        return self.snapshot

    async def refresh(self, names: tuple[str, ...]) -> None:
        await asyncio.gather(*map(self._refresh, names))
        await self.merge()

    async def known(self) -> Snapshot:
        """As `CatalogueSource.known`: all are waited for a while, then the first that answers. Raises what the first one did when none does."""
        await self.until(tuple(self.parts), lambda: self.snapshot.is_known)
        return self.snapshot

    async def until(self, names: tuple[str, ...], is_known: Callable[[], bool]) -> None:
        """Reads those of these names until something is known. Raises what the first of them did when none says anything."""
        if is_known():
            return
        read = self._first_reads.get(names)
        if read is None or read.done():
            read = self._first_reads[names] = self._tasks.start(self._read_first(names, is_known), "catalogues")
        await asyncio.wait((read,))
        if (failure := read.result()) is not None:
            raise failure

    async def renew(self, comfyui: str = "") -> None:
        """Reads one of them again now, for one that was restarted; all of them where none is named.

        Raises UpstreamUnavailable or UpstreamTimeout when it never said anything.
        """
        for name in (comfyui,) if comfyui else tuple(self.parts):
            self._passed_over.pop(name, None)
            if (part := self.parts.get(name)) is not None:
                await part.renew()
        await self.merge()

    async def keep_fresh(self, is_wanted: Callable[[], bool]) -> None:
        """Looks now and then whether a ComfyUI has got what it had not: a job may wait for a model that somebody puts there."""
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            if is_wanted():
                with suppress(UpstreamUnavailable, UpstreamTimeout):
                    await self.fresh()

    def change(self, parts: Mapping[str, CatalogueSource]) -> None:
        """Some have come, or gone, which is for others to stop. What one has that never said anything is known when it says it."""
        if list(parts.items()) == list(self.parts.items()):
            return
        self.parts = parts
        self._partial.clear()
        self._tasks.start(self._take_up(), "catalogues")

    async def _take_up(self) -> None:
        await self.merge()
        for part in self.parts.values():
            if not part.snapshot.is_known:
                self._tasks.start(self._read(part), "catalogue")

    async def stop(self) -> None:
        await self._tasks.stop()
        for part in self.parts.values():
            await part.stop()

    async def _refresh(self, name: str) -> None:
        asked_s, part = time.monotonic(), self.parts.get(name)
        if part is None or asked_s < self._passed_over.get(name, 0.0):
            return
        if not part.snapshot.is_known:
            self._passed_over[name] = asked_s + PASSED_OVER_S
            self._tasks.start(self._read(part), "catalogue")
        elif (await part.fresh()).read_at_s < asked_s - FRESH_S:
            self._passed_over[name] = time.monotonic() + PASSED_OVER_S

    async def _read_first(self, names: tuple[str, ...], is_known: Callable[[], bool]) -> _Failure | None:
        """Why nothing is known, of the first one."""
        reads = [self._tasks.start(self._read(part), "catalogue") for part in self.of(names)]
        waiting = set(reads)
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=PATIENCE_S)
        while waiting and not is_known():
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if is_known():
            return None
        return reads[0].result() if reads else UpstreamUnavailable()

    async def _read(self, part: CatalogueSource) -> _Failure | None:
        try:
            await part.known()
        except (UpstreamUnavailable, UpstreamTimeout) as failure:
            return failure
        await self.merge()
        return None

    async def merge(self) -> None:
        """Anew where one of them said something else."""
        async with self._lock:
            found = {name: part.snapshot for name, part in self.parts.items() if part.snapshot.is_known}
            version = " ".join(f"{name}={snapshot.version}" for name, snapshot in found.items())
            if not found or version == self.snapshot.version:
                return
            is_whole = len(found) == len(self.parts)
            merged = await asyncio.to_thread(_merge, list(found.values()), is_whole=is_whole)
            for (name, snapshot), shared in zip(found.items(), merged.parts, strict=True):
                part = self.parts.get(name)
                if part is not None and part.snapshot.catalogue is snapshot.catalogue:
                    part.snapshot = replace(part.snapshot, catalogue=shared)
            self.snapshot, self._made_of = Snapshot(merged.catalogue, version, time.monotonic()), frozenset(found)


class PartialCatalogue:
    """The newest union of some of them. names: theirs, in the order of `whole.parts`. Like a MergedCatalogue."""

    def __init__(self, whole: MergedCatalogue, names: tuple[str, ...]) -> None:
        self._whole = whole
        self._names = names
        self._lock = asyncio.Lock()
        self._taken_from: Snapshot | None = None
        self.snapshot = Snapshot(version="" if names else "of none")

    async def fresh(self) -> Snapshot:
        await self.known()
        await self._whole.refresh(self._names)
        return await self.known()

    async def known(self) -> Snapshot:
        """As `MergedCatalogue.known`, of these alone; where there is none of them, nothing can be run."""
        if self._names and self._taken_from is not self._whole.snapshot:
            await self._whole.known()  # what is read for these alone would be taken for the whole
            await self._whole.until(self._names, self._has_any)
            await self._take_up()
        return self.snapshot

    def _has_any(self) -> bool:
        return any(part.snapshot.is_known for part in self._whole.of(self._names))

    async def _take_up(self) -> None:
        async with self._lock:
            await self._whole.merge()  # the parts share their texts from then on
            whole = self._whole.snapshot
            if self._taken_from is not whole:
                parts = [part.snapshot for part in self._whole.of(self._names)]
                catalogue = await asyncio.to_thread(_merge_some, [part for part in parts if part.is_known], whole)
                version = f"{' '.join(self._names)} of {whole.version}"
                self.snapshot, self._taken_from = Snapshot(catalogue, version, time.monotonic()), whole


def _merge_some(parts: list[Snapshot], whole: Snapshot) -> Catalogue:
    merged = merge_some([part.catalogue for part in parts], whole.catalogue)
    give_back_memory()
    return merged


def _merge(snapshots: list[Snapshot], *, is_whole: bool) -> Merged:
    merged = merge([snapshot.catalogue for snapshot in snapshots], is_whole=is_whole)
    give_back_memory()
    return merged

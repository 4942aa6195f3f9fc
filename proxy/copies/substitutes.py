"""Files that a job reads, of a ComfyUI that is away, and that the bucket has: found out beside the dispatcher, which waits for none of it."""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from policy.call import UpstreamPath
from policy.namespace import Folder
from policy.principal import TenantId
from proxy.copies.reader import CopyReader
from proxy.files.transfers import CopiedFile
from proxy.http.errors import TurnedAway, UpstreamUnreachable
from proxy.tasks import Tasks

LOOK_AGAIN_S: Final = 60.0
"""What was found out is believed for so long; also that the bucket did not give a file."""
MAX_KNOWN: Final = 10_000
"""Files of all tenants. SECURITY: of more than that the oldest of the tenant that has the most goes, so that nobody's jobs have a neighbour's looked for
again and again (tests/proxy/copies/test_substitutes.py::test_who_asks_for_most_forgets_its_own)."""
_FORGOTTEN_PART: Final = 64
"""The how-manieth part of all."""
MAX_WANTED: Final = 256
"""Files of one tenant that are to be looked for, about. Tenants take turns."""
File = tuple[Folder, UpstreamPath]


class _Known(NamedTuple):
    is_there: bool
    until_s: float


_NOTHING: Final[Mapping[File, _Known]] = {}


class Substitutes:
    """on_found: called when one was found of which nothing was known. clock: seconds."""

    def __init__(
        self, reader: CopyReader, on_found: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._on_found = on_found
        self._clock = clock
        self._known: dict[TenantId, OrderedDict[File, _Known]] = {}
        self._count = 0
        self._asked: list[tuple[TenantId, Sequence[File]]] = []
        self._wanted: dict[TenantId, dict[File, None]] = {}
        self._tasks = Tasks()
        self._is_looking = False

    async def stop(self) -> None:
        await self._tasks.stop()

    def has(self, tenant: TenantId, files: Sequence[File]) -> bool:
        """Whether there is a copy of each, as far as is known. What is not is found out when `look` is called. In any thread."""
        known = [self._current(tenant, file) for file in files]
        if any(each is not None and not each.is_there for each in known):
            return False
        if None in known:
            self._asked.append((tenant, files))
            return False
        return True

    def look(self) -> None:
        asked, self._asked = self._asked, []
        for tenant, files in asked:
            wanted = self._wanted.setdefault(tenant, {})
            wanted.update(dict.fromkeys(files if len(wanted) < MAX_WANTED else ()))
        if self._wanted and not self._is_looking:
            self._is_looking = True
            self._tasks.start(self._look(), "copies for jobs")

    async def open(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> CopiedFile | None:
        """None where its ComfyUI answers, or the bucket has it not."""
        if self._reader.meant.answers(folder, path):
            return None
        copy = await self._reader.find_copy_instead(tenant, folder, path)
        self._note(tenant, (folder, path), is_there=copy is not None)
        if copy is None:
            return None

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in self._reader.pieces(copy):
                    yield piece
            except TurnedAway as error:  # the job waits; and not for this bucket at once again, with those behind it
                self._note(tenant, (folder, path), is_there=False)
                raise UpstreamUnreachable from error

        return CopiedFile(copy.size_bytes, copy.stamp or copy.hash, pieces)

    def _current(self, tenant: TenantId, file: File) -> _Known | None:
        known = self._known.get(tenant, _NOTHING).get(file)
        return None if known is None or known.until_s <= self._clock() else known

    def _note(self, tenant: TenantId, file: File, *, is_there: bool) -> None:
        known = self._known.setdefault(tenant, OrderedDict())
        self._count += file not in known
        known[file] = _Known(is_there, self._clock() + LOOK_AGAIN_S)
        known.move_to_end(file)
        if self._count > MAX_KNOWN:
            self._forget_some()

    def _forget_some(self) -> None:
        """Several at once: to look through all tenants for each would take longer than to look for the file."""
        most = [(-len(known), tenant) for tenant, known in self._known.items()]
        heapq.heapify(most)
        for _ in range(max(1, MAX_KNOWN // _FORGOTTEN_PART)):
            size, tenant = most[0]
            self._known[tenant].popitem(last=False)
            self._count -= 1
            if size == -1:
                del self._known[tenant]
            heapq.heapreplace(most, (size + 1, tenant))

    async def _look(self) -> None:
        try:
            while self._wanted:
                for tenant in list(self._wanted):
                    await self._look_for_one(tenant)
        finally:
            self._is_looking = False

    async def _look_for_one(self, tenant: TenantId) -> None:
        wanted = self._wanted[tenant]
        file = next(iter(wanted))
        try:
            is_there = await self._reader.find_copy_instead(tenant, *file) is not None
        finally:
            del wanted[file]
            if not wanted:
                del self._wanted[tenant]
        self._note(tenant, file, is_there=is_there)
        if is_there:
            self._on_found()

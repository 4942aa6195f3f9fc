"""What is changed in which file, remembered: a file is looked through once and sent many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from policy.call import UpstreamPath
from policy.media.editing import Edit
from policy.namespace import Folder
from policy.principal import TenantId

MAX_BYTES: Final = 16 * 1024**2
_ENTRY_BYTES: Final = 512
"""Of memory for each file, besides what is put into it."""


class Place(NamedTuple):
    """Where a file lies, and whose it is."""

    tenant: TenantId
    folder: Folder
    path: UpstreamPath


class KnownEdits:
    """Those of the files that were sent last. Used by many threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._known: OrderedDict[Place, tuple[str, tuple[Edit, ...]]] = OrderedDict()
        self._bytes = 0

    def find(self, place: Place, stamp: str | None = None) -> tuple[Edit, ...] | None:
        """Of the file as it was by that stamp; by any, where None is given. None where they are not known."""
        with self._lock:
            known = self._known.get(place)
            if known is None or stamp not in (None, known[0]):
                return None
            self._known.move_to_end(place)
            return known[1]

    def keep(self, place: Place, stamp: str, edits: Iterable[Edit]) -> tuple[Edit, ...]:
        """stamp: of the file, as its ETag has it; "" for one that says nothing, and is not kept."""
        kept = tuple(edits)
        size = _size_of(kept)
        if not stamp or size > self._max_bytes:
            return kept
        with self._lock:
            self._drop(place)
            self._known[place] = (stamp, kept)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._known)))
        return kept

    def _drop(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._bytes -= _size_of(known[1])


def _size_of(edits: tuple[Edit, ...]) -> int:
    return _ENTRY_BYTES + sum(_ENTRY_BYTES + len(edit.replacement) for edit in edits)

"""A file of ComfyUI's, opened to be read in any order, as its tenant gets it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import IO, Protocol

from policy.media.editing import Edit, apply
from policy.v2.outputs import content_type_of
from proxy.files.comfyui_ranges import RangeReader
from proxy.files.known_edits import Place


class OpenedFile(Protocol):
    """stamp: of what it is, as its ETag has it; "" where nothing tells."""

    size: int
    content_type: str
    stamp: str

    async def read(self, offset: int, size: int) -> bytes:
        """So many bytes, fewer at the end of the file alone; at most MAX_SPAN_BYTES of policy/media/editing.py at a time.

        Raises OSError, UpstreamUnavailable, UpstreamTimeout; Unreadable where it is another file by now.
        """
        ...


class FileOnDisk:
    def __init__(self, place: Place, file: IO[bytes], size: int, stamp: str, edits: Sequence[Edit]) -> None:
        self.size = size
        self.content_type = content_type_of(place.path)
        self.stamp = stamp
        self._file = file
        self._edits = edits

    async def read(self, offset: int, size: int) -> bytes:
        found = await asyncio.to_thread(os.pread, self._file.fileno(), size, offset)
        return apply(found, self._edits, offset)


class FileOfComfyUI:
    def __init__(self, place: Place, reader: RangeReader, size: int, stamp: str, edits: Sequence[Edit]) -> None:
        self.size = size
        self.content_type = content_type_of(place.path)
        self.stamp = stamp
        self._reader = reader
        self._edits = edits

    async def read(self, offset: int, size: int) -> bytes:
        return apply(await self._reader.read(offset, size), self._edits, offset)

"""Files that jobs made, as their tenant gets them: with the workflow in its own words (policy/media), at the same length.

From the disk where the gate sees ComfyUI's folders, else as ComfyUI sends them. What a tenant has uploaded is given back as it is.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.media.editing import Edit, Read
from policy.media.formats import MediaEdits, find_edits, own_workflow
from policy.media.streaming import WORK_BYTES
from policy.namespace import Folder, Namespace
from policy.principal import TenantId
from policy.rules.files import view_of
from proxy.files.comfyui_folders import regular_file, stamp_of
from proxy.files.comfyui_ranges import RangeReader, Unreadable
from proxy.files.directories import UNSEEN, Directories
from proxy.files.edited_bodies import EditedBody
from proxy.files.known_edits import KnownEdits, Place
from proxy.files.opened_files import FileOfComfyUI, FileOnDisk, OpenedFile
from proxy.http import hdrs
from proxy.http.body_memory import BodyPlace, BodyRoom
from proxy.http.errors import UpstreamUnavailable
from proxy.http.file_sending import open_beside, open_file
from proxy.http.replies import FileEdits, Source
from proxy.limits.heavy_work import HeavyWork
from proxy.upstream.client import Upstream, UpstreamStream

AtEnd = Callable[..., object]
"""Takes a function, and what it is called with."""
_ROOM_WAIT_S: Final = 60.0
_MADE: Final = frozenset({Folder.OUTPUT, Folder.TEMP})
_MAX_PLACES: Final = 64
"""Of a file of which ComfyUI sends a part, to look through it."""
_MAX_SCATTERED: Final = 4096
_LIMIT_S: Final = 30.0
_UNKNOWN_SIZE: Final = 2**62


def place_of(tenant: TenantId, folder: Folder, path: UpstreamPath) -> Place | None:
    """None for a file that no job made."""
    return Place(tenant, folder, path) if folder in _MADE else None


class TenantFiles:
    """SECURITY: large texts are read one at a time, tenants in turn (tests/proxy/files/test_tenant_files.py)."""

    def __init__(self, upstream: Upstream, heavy: HeavyWork, directories: Directories = UNSEEN) -> None:
        self._upstream = upstream
        self._heavy = heavy
        self._room = BodyRoom()
        self._directories = directories
        self._known = KnownEdits()
        self._scattered: OrderedDict[Place, str] = OrderedDict()
        """Stamps of files in which too many places would have to be read."""

    async def on_disk(self, place: Place | None, file: Path, at_end: AtEnd) -> FileEdits | None:
        """For a file that is going to be sent from the disk. at_end: takes what is called when it was. Raises LimitExceeded."""
        if place is None:
            return None
        known = self._known.find(place)
        edits = await self._look_through(place, file) if known is None else known
        await self._hold(place, edits, at_end)
        return partial(self.of_opened, place)

    def of_opened(self, place: Place | None, descriptor: int, found: os.stat_result) -> Sequence[Edit]:
        """Of an opened file; reads it where it is not known, in the caller's thread. Raises OSError."""
        if place is None:
            return ()
        stamp = stamp_of(found)
        known = self._known.find(place, stamp)
        if known is not None:
            return known
        media = self._media_of(place, found.st_size)
        return self._known.keep(
            place, stamp, find_edits(media, lambda offset, size: os.pread(descriptor, size, offset))
        )

    async def of_part(self, place: Place, etag: str, size: int, at_end: AtEnd) -> Sequence[Edit] | None:
        """Of a file of which ComfyUI sends a part; None where that would be many calls. at_end: see `on_disk`.

        Raises UpstreamUnavailable, UpstreamTimeout, LimitExceeded.
        """
        edits = await self._of_part(place, etag, size)
        await self._hold(place, edits or (), at_end)
        return edits

    async def _of_part(self, place: Place, etag: str, size: int) -> Sequence[Edit] | None:
        stamp = etag.strip('"')
        known = self._known.find(place, stamp)
        # SECURITY: a call of one byte makes many calls of ComfyUI once (test_tenant_files.py).
        if known is not None or not stamp or self._scattered.get(place) == stamp:
            return known
        reader, media = (
            RangeReader(self._upstream, place.folder, place.path, etag, _MAX_PLACES),
            self._media_of(place, size),
        )
        try:
            with self._room_of(place) as room:
                while (asked := media.asked) is not None:
                    await _have_room(room, asked)
                    await self._give(place, media, await reader.read(asked.offset, asked.size))
        except Unreadable:
            self._scattered[place] = stamp
            if len(self._scattered) > _MAX_SCATTERED:
                self._scattered.popitem(last=False)
            return None
        return self._known.keep(place, stamp, media.edits)

    def body_of(self, place: Place | None, stream: UpstreamStream) -> Source:
        """Of ComfyUI's answer with a whole file."""
        return stream if place is None else self._edited(place, stream)

    def _edited(self, place: Place, stream: UpstreamStream) -> EditedBody:
        size = stream.connection.answer.content_length
        media = self._media_of(place, _UNKNOWN_SIZE if size is None else size)
        stamp = stream.headers.get(hdrs.ETAG, "").strip('"')
        work, found = partial(self._heavy.run, place.tenant), partial(self._known.keep, place, stamp)
        return EditedBody(stream, media, work, self._room_of(place), found)

    async def _hold(self, place: Place, edits: Sequence[Edit], at_end: AtEnd) -> None:
        """Edits are held as long as they are sent, however slowly."""
        size = sum(len(edit.replacement) for edit in edits)
        if size > WORK_BYTES:
            room = self._room_of(place)
            await room.hold(size)
            at_end(room.__exit__, None, None, None)

    def _room_of(self, place: Place) -> BodyPlace:
        return BodyPlace(self._room, place.tenant, _ROOM_WAIT_S)

    @asynccontextmanager
    async def open(self, tenant: TenantId, folder: Folder, path: UpstreamPath) -> AsyncIterator[OpenedFile]:
        """For whoever reads it in another order than a download does.

        Raises FileNotFoundError, OSError, UpstreamUnavailable, UpstreamTimeout, LimitExceeded.
        """
        place = Place(tenant, folder, path)
        root, file = self._directories.root_of(folder, path), None
        if root is not None:
            file = await asyncio.to_thread(regular_file, root, path)
        if file is None:
            yield await self._open_at_comfyui(place)
            return
        released = ExitStack()
        edits = await self.on_disk(place_of(*place), file, released.callback)
        opened, found = await open_beside(partial(_open, file), lambda made: made[0].close())
        try:
            known = () if edits is None else await asyncio.to_thread(edits, opened.fileno(), found)
            yield FileOnDisk(place, opened, found.st_size, stamp_of(found), known)
        finally:
            released.close()
            await asyncio.to_thread(opened.close)

    async def _open_at_comfyui(self, place: Place) -> FileOfComfyUI:
        fields = CIMultiDict({hdrs.ACCEPT_ENCODING: "identity"})
        call = view_of("HEAD", place.folder, place.path)
        async with await self._upstream.open(call, fields, time_limit_s=_LIMIT_S) as stream:
            etag, size = stream.headers.get(hdrs.ETAG, ""), stream.connection.answer.content_length
            if stream.status in (400, 403, 404):
                raise FileNotFoundError
            if stream.status != 200 or size is None:
                raise UpstreamUnavailable(status=503)
        edits: Sequence[Edit] | None = ()
        if place_of(*place) is not None:
            edits = await self._of_part(place, etag, size)
        if edits is None:
            edits = await self._of_whole(place, fields)
        reader = RangeReader(self._upstream, place.folder, place.path, etag)
        return FileOfComfyUI(place, reader, size, etag.strip('"'), edits)

    async def _of_whole(self, place: Place, fields: CIMultiDict[str]) -> Sequence[Edit]:
        """What a file of many parts has, which ComfyUI sends for it."""
        call = view_of("GET", place.folder, place.path)
        async with await self._upstream.open(call, fields, time_limit_s=_LIMIT_S) as stream:
            if stream.status != 200:
                raise UpstreamUnavailable(status=503)
            body = self._edited(place, stream)
            await body.pour(_Nowhere())
            return body.edits

    async def _look_through(self, place: Place, file: Path) -> Sequence[Edit]:
        try:
            opened, found = await open_beside(partial(_open, file), lambda made: made[0].close())
        except OSError:
            return ()  # who sends it finds that it is gone
        try:
            media, descriptor = self._media_of(place, found.st_size), opened.fileno()
            with self._room_of(place) as room:
                while (asked := await asyncio.to_thread(_read_until_work, media, descriptor)) is not None:
                    await _have_room(room, asked)
                    data = await asyncio.to_thread(os.pread, descriptor, asked.size, asked.offset)
                    await self._give(place, media, data)
            return self._known.keep(place, stamp_of(found), media.edits)
        finally:
            await asyncio.to_thread(opened.close)

    def _media_of(self, place: Place, size: int) -> MediaEdits:
        maker = self._directories.writer_of(place.folder, place.path)
        return own_workflow(size, Namespace(place.tenant), maker)

    async def _give(self, place: Place, media: MediaEdits, data: bytes) -> None:
        await self._heavy.run(place.tenant, partial(media.give, data), len(data))


def _open(file: Path) -> tuple[IO[bytes], os.stat_result]:
    opened = open_file(file)
    return opened, os.fstat(opened.fileno())


def _read_until_work(media: MediaEdits, descriptor: int) -> Read | None:
    """Goes through the file until a large text comes, which it returns."""
    while (asked := media.asked) is not None:
        if asked.size > WORK_BYTES:
            return asked
        media.give(os.pread(descriptor, asked.size, asked.offset))
    return None


async def _have_room(room: BodyPlace, asked: Read) -> None:
    """For what is held, and for what takes its place."""
    wanted_bytes = asked.offset + asked.size - asked.kept_from
    if wanted_bytes > WORK_BYTES:
        await room.hold(2 * wanted_bytes)


class _Nowhere:
    """Takes a body that nobody wants; see `Taker`."""

    def take(self, _: bytes | memoryview) -> bool:
        return True

    async def ready(self) -> None:
        return

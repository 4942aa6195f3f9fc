"""Bodies of ComfyUI's answers with edits in them, as they come: a whole file whose edits are found on the way, and a part of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from policy.media.editing import Edit, apply
from policy.media.formats import MediaEdits
from policy.media.streaming import WORK_BYTES, EditedStream
from proxy.http.body_memory import BodyPlace
from proxy.http.replies import Source, Taker

Work = Callable[[Callable[[], bytes], int], Awaitable[bytes]]
"""Does it where it keeps nobody; the number is its size in bytes (proxy/limits/heavy_work.py)."""


class EditedBody:
    """A whole file. found: called with the edits when all of it has come. room: what it holds of memory. Raises what the work does, and LimitExceeded."""

    def __init__(
        self,
        source: Source,
        media: MediaEdits,
        work: Work,
        room: BodyPlace,
        found: Callable[[Sequence[Edit]], object],
    ) -> None:
        self._source = source
        self._media = media
        self._work = work
        self._room = room
        self._found = found

    @property
    def edits(self) -> Sequence[Edit]:
        """When all of it has come."""
        return self._media.edits

    async def pour(self, taker: Taker) -> None:
        # Edits are held as long as it leaves.
        with self._room:
            through = _Through(EditedStream(self._media), taker, self._work, self._room)
            await self._source.pour(through)
            await through.finish()
        self._found(self._media.edits)


class _Through:
    """Takes a file, and gives on what may leave.

    SECURITY: large texts, many and for slow readers, would fill the gate's memory (test_edited_bodies.py::test_large_texts_wait_for_room).
    """

    __slots__ = ("_free_bytes", "_room", "_stream", "_taker", "_work")

    def __init__(self, stream: EditedStream, taker: Taker, work: Work, room: BodyPlace) -> None:
        self._stream = stream
        self._taker = taker
        self._work = work
        self._room = room
        self._free_bytes = WORK_BYTES

    def take(self, piece: bytes | memoryview) -> bool:
        left = self._stream.feed(piece)
        if left is piece:  # of which nothing is read
            return self._taker.take(piece)
        has_left = self._taker.take(left) if left else True
        return has_left and not self._stream.work_bytes and self._stream.wanted_bytes <= self._free_bytes

    async def ready(self) -> None:
        await self._taker.ready()
        await self._have_room()
        while size := self._stream.work_bytes:
            await self._give(await self._work(self._stream.work, size))

    async def _have_room(self) -> None:
        """For what is going to be held, and for what takes its place."""
        wanted_bytes = self._stream.wanted_bytes
        if wanted_bytes > self._free_bytes:
            await self._room.hold(2 * wanted_bytes)
            self._free_bytes = wanted_bytes

    async def finish(self) -> None:
        await self._give(self._stream.end())
        await self.ready()

    async def _give(self, left: bytes) -> None:
        if left and not self._taker.take(left):
            await self._taker.ready()


class EditedPart:
    """A part of a file. start: where in it the part begins."""

    def __init__(self, source: Source, edits: Sequence[Edit], start: int) -> None:
        self._source = source
        self._edits = edits
        self._start = start

    async def pour(self, taker: Taker) -> None:
        await self._source.pour(_Part(self._edits, self._start, taker))


class _Part:
    __slots__ = ("_edits", "_start", "_taker")

    def __init__(self, edits: Sequence[Edit], start: int, taker: Taker) -> None:
        self._edits = edits
        self._start = start
        self._taker = taker

    def take(self, piece: bytes | memoryview) -> bool:
        start, self._start = self._start, self._start + len(piece)
        return self._taker.take(apply(bytes(piece), self._edits, start) if self._edits else piece)

    async def ready(self) -> None:
        await self._taker.ready()

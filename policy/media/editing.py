"""How a media file is read and changed without a disk or a socket: a reader asks for bytes, gets them, and notes what takes the place of which.

Everything is bounded: a file that is built to be long to read is not understood.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final

from policy.values import value

MAX_SPAN_BYTES: Final = 16 * 1024**2
"""Of what is held of a file at a time: one text with what stands around it."""
MAX_PARTS: Final = 16_384
"""Chunks, boxes, elements or pages of a file that are looked at; and of one box or element."""
_PIECE_BYTES: Final = 1024**2
ACROSS_BYTES: Final = 64
"""Of one piece that are seen with the next one: a word may begin in it."""
GONE: Final = b""
"""What a judge says of a text that is to go."""

Judge = Callable[[str, bytes], bytes | None]
"""What becomes of a text under its key: None, it stays; GONE; or a text of the same number of bytes."""


@value
class Read:
    """Asks for bytes: all of them, or those up to the end of the file. keep: from where bytes may still be edited, `offset` where it is None.

    Neither goes back: what lies before `keep` can be given away as it is by then, while the file still comes. Of a judge that says GONE this is not
    so: what it takes away may change a length that stands at the beginning.
    """

    offset: int
    size: int
    keep: int | None = None

    @property
    def kept_from(self) -> int:
        return self.offset if self.keep is None else self.keep


@value
class Edit:
    """So many bytes there, and what takes their place."""

    offset: int
    length: int
    replacement: bytes


Reading = Generator[Read, bytes, None]
"""A reader of one format; it ends when nothing more is to come. Raises NotUnderstood."""


class NotUnderstood(Exception):
    """The file is not what it seemed to be, is damaged, or exceeds a bound."""


class Editing:
    """What a reader finds. edits: in the order of the file, none over another one.

    max_bytes: of what is held at a time, and of all that takes the place of something, each of the same length; None for MAX_SPAN_BYTES, and for any number
    of any length.
    is_suspect: whether what is left of a part may still have what is to go. With it a file is read in all its parts but pictures, films and sounds
    themselves, which are searched as they are, and one with a part that is suspect, or cannot be looked at, is not understood; without it such a part
    stays. open_end: what of a piece is seen with the next one, where that is more than its last bytes.
    """

    def __init__(
        self,
        judge: Judge,
        size: int,
        *,
        max_bytes: int | None = None,
        is_suspect: Callable[[bytes], bool] | None = None,
        open_end: Callable[[bytes], bytes] = lambda data: b"",
    ) -> None:
        self.judge = judge
        self.size = size
        self.edits: list[Edit] = []
        self.max_span_bytes = MAX_SPAN_BYTES if max_bytes is None else max_bytes
        self._room = max_bytes
        self._is_suspect = is_suspect
        self._open_end = open_end
        self._parts = 0

    def count(self) -> None:
        """For each part that is looked at. Raises NotUnderstood when there are too many."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise NotUnderstood

    def replace(self, offset: int, old: bytes, new: bytes) -> None:
        """Raises NotUnderstood where that is too much, or of another length in a file that keeps its own."""
        if new == old:
            return
        if self._room is not None:
            if len(new) != len(old):
                raise NotUnderstood
            self._room -= len(new)
            if self._room < 0:
                raise NotUnderstood
        self.edits.append(Edit(offset, len(old), new))

    def is_held(self, size: int) -> bool:
        """Whether a text of that size, with what stands around it, is looked at. Raises NotUnderstood where it may not be passed over."""
        if size > self.max_span_bytes:
            self.pass_over()
        return size <= self.max_span_bytes

    @property
    def is_thorough(self) -> bool:
        """Whether nothing may be passed over."""
        return self._is_suspect is not None

    def pass_over(self) -> None:
        """For a part that is not read. Raises NotUnderstood where it may not be passed over."""
        if self.is_thorough:
            raise NotUnderstood

    def leave(self, data: bytes) -> None:
        """For what stays as it is, or is left when texts have gone. Raises NotUnderstood where that is suspect."""
        if self._is_suspect is not None and self._is_suspect(data):
            raise NotUnderstood

    def look_at(self, offset: int, size: int) -> Reading:
        """A part that stays as it is, or of which the texts have no place of their own. Raises NotUnderstood as `leave` does."""
        if self.is_thorough:
            self.leave((yield from self.exactly(offset, size)))

    def search(self) -> Reading:
        """All that leaves, piece by piece, when everything was edited: films have texts among their pictures, models have pictures with texts of their own.

        Raises NotUnderstood as `leave` does.
        """
        done, seen = 0, b""
        for edit in [*self.edits, Edit(self.size, 0, b"")] if self.is_thorough else []:
            while done < edit.offset:
                piece = yield from self.exactly(done, min(_PIECE_BYTES, edit.offset - done))
                done += len(piece)
                seen = self._leave_piece(seen + piece)
            seen = self._leave_piece(seen + edit.replacement)
            done = edit.offset + edit.length

    def _leave_piece(self, data: bytes) -> bytes:
        """`leave`; gives what is seen with the next piece."""
        self.leave(data)
        return self._open_end(data) or data[-ACROSS_BYTES:]

    def exactly(self, offset: int, size: int) -> Generator[Read, bytes, bytes]:
        """Raises NotUnderstood where the file ends before, and for more than is held at a time."""
        if size > self.max_span_bytes:
            raise NotUnderstood
        found = yield Read(offset, size)
        if len(found) != size:
            raise NotUnderstood
        return found


def size_after(size: int, edits: Iterable[Edit]) -> int:
    """Of a file of that size."""
    return size + sum(len(edit.replacement) - edit.length for edit in edits)


def apply(data: bytes, edits: Sequence[Edit], start: int = 0) -> bytes:
    """A piece of the file with the edits in it, however many lie elsewhere. start: where in the file the piece begins.

    An edit that lies in it only in part must be of the same length as what it replaces.
    """
    pieces: list[bytes | memoryview] = []
    view, done, end = memoryview(data), start, start + len(data)
    for place in range(bisect_right(edits, start, key=_end_of), len(edits)):
        edit = edits[place]
        first, last = max(edit.offset, start), min(edit.offset + edit.length, end)
        if first >= last:
            break
        pieces.append(view[done - start : first - start])
        is_whole = last - first == edit.length
        pieces.append(edit.replacement if is_whole else edit.replacement[first - edit.offset : last - edit.offset])
        done = last
    if not pieces:
        return data
    pieces.append(view[done - start :])
    return b"".join(pieces)


def _end_of(edit: Edit) -> int:
    return edit.offset + edit.length


def big(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "big")


def little(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "little")

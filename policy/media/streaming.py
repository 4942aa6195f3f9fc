"""A file with its edits while it comes: what its reader may still edit is held, the rest goes on at once."""

from __future__ import annotations

from typing import Final

from policy.media.editing import Read, apply
from policy.media.formats import MediaEdits

WORK_BYTES: Final = 32 * 1024
"""What its reader is given at once; more than that is work, which is done where it keeps nobody."""


class EditedStream:
    """media: of edits that each have the length of what they replace."""

    def __init__(self, media: MediaEdits) -> None:
        self._media = media
        self._asked: Read | None = next(media.reading, None)
        self._held = bytearray()
        self._start = 0
        self._applied = 0
        self._has_ended = False

    def feed(self, piece: bytes | memoryview) -> bytes | memoryview:
        """The next piece of the file. → what may leave; see `work_bytes` before the next one."""
        asked = self._asked
        if not self._held and (asked is None or asked.kept_from >= self._start + len(piece)):
            self._start += len(piece)
            return piece
        self._held += piece
        return self._advance()

    def end(self) -> bytes:
        """There is no more. → what may leave; see `work_bytes`, and `work` until that is 0."""
        self._has_ended = True
        return self._advance()

    @property
    def work_bytes(self) -> int:
        """Of the work that comes before all else; 0 where there is none."""
        return min(self._asked.size, len(self._held)) if self._asked is not None and self._is_here(self._asked) else 0

    def work(self) -> bytes:
        """Does it. → what may leave then."""
        self._step()
        return self._advance()

    def _is_here(self, asked: Read) -> bool:
        return self._has_ended or asked.offset + asked.size <= self._start + len(self._held)

    def _advance(self) -> bytes:
        while self._asked is not None and self._is_here(self._asked):
            if min(self._asked.size, len(self._held)) > WORK_BYTES:
                break
            self._step()
        return self._release()

    def _step(self) -> None:
        assert self._asked is not None
        first = self._asked.offset - self._start
        try:
            self._asked = self._media.reading.send(bytes(self._held[first : first + self._asked.size]))
        except StopIteration:
            self._asked = None

    def _release(self) -> bytes:
        end = self._start + len(self._held)
        if self._asked is not None:
            end = min(end, self._asked.kept_from)
        count = end - self._start
        edits = self._media.edits[self._applied :]
        left = apply(bytes(self._held[:count]), edits, self._start)
        del self._held[:count]
        self._start = end
        self._applied += sum(edit.offset + edit.length <= end for edit in edits)
        return left

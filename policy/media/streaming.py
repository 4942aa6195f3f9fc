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
        self._held = bytearray()
        self._start = 0
        self._applied = 0
        self._has_ended = False

    def feed(self, piece: bytes | memoryview) -> bytes | memoryview:
        """The next piece of the file. → what may leave; see `work_bytes` before the next one."""
        asked = self._media.asked
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
        asked = self._answerable
        return 0 if asked is None else min(asked.size, len(self._held))

    @property
    def wanted_bytes(self) -> int:
        """How much is going to be held, as far as is known."""
        asked = self._media.asked
        return 0 if asked is None else asked.offset + asked.size - asked.kept_from

    def work(self) -> bytes:
        """Does it. → what may leave then."""
        self._step()
        return self._advance()

    @property
    def _answerable(self) -> Read | None:
        asked = self._media.asked
        is_here = asked is not None and asked.offset + asked.size <= self._start + len(self._held)
        return asked if is_here or self._has_ended else None

    def _advance(self) -> bytes:
        while (asked := self._answerable) is not None and min(asked.size, len(self._held)) <= WORK_BYTES:
            self._step()
        return self._release()

    def _step(self) -> None:
        asked = self._media.asked
        assert asked is not None, "there is work"
        first = asked.offset - self._start
        self._media.give(bytes(self._held[first : first + asked.size]))

    def _release(self) -> bytes:
        end = self._start + len(self._held)
        if self._media.asked is not None:
            end = min(end, self._media.asked.kept_from)
        count = end - self._start
        edits = self._media.edits[self._applied :]
        left = apply(bytes(self._held[:count]), edits, self._start)
        del self._held[:count]
        self._start = end
        self._applied += sum(edit.offset + edit.length <= end for edit in edits)
        return left

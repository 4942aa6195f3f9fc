"""Exif: the TIFF structure in JPEG, WebP and PNG files. ComfyUI writes `key:JSON` into tags of the first directory (comfy_api/latest/_ui.py)."""

from __future__ import annotations

import re
from typing import Final, Literal

from policy.media.editing import GONE, Editing, NotUnderstood

MARK: Final = b"Exif\0\0"
_ENTRY: Final = 12
_TEXT_KINDS: Final = frozenset({2})
_COMMENT_KINDS: Final = frozenset({1, 2, 7})
"""Undefined, as Exif has it, or as its writers do."""
_BYTE_KINDS: Final = frozenset({1, 2, 6, 7, 129})
"""In which there may be a text: in UTF-16 in those of Windows (XPComment), in UTF-8 from Exif 3.0 on."""
_EXIF_DIRECTORY: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_ASCII_COMMENT: Final = b"ASCII\0\0\0"
_KEY = re.compile(rb"([A-Za-z0-9_. -]{1,79}):")


def rewrite(data: bytes, editing: Editing) -> bytes:
    """Judged, of the same length; GONE where nothing is left in it of what there was. data: with Exif's mark or without. Raises NotUnderstood."""
    lead = len(MARK) if data.startswith(MARK) else 0
    exif = _Exif(bytearray(data[lead:]), editing)
    if not exif.rewrite():
        return GONE
    made = bytes(exif.data)
    editing.leave(made)
    return data[:lead] + made


class _Exif:
    def __init__(self, data: bytearray, editing: Editing) -> None:
        self.data = data
        self._editing = editing
        # SECURITY: many entries may name the same bytes, which would be read for each: a text, or a directory of as many entries again
        # (tests/policy/media/test_bounds.py).
        self._budget = len(data)
        self._order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def rewrite(self) -> bool:
        """Says whether anything is left."""
        if not self.data.startswith((b"II*\0", b"MM\0*")):
            raise NotUnderstood
        first = self._number(4, 4)
        # A library's Exif without an entry is written too, as by ComfyUI with --disable-metadata.
        was_empty = not self._number(first, 2)
        self._directory(first, is_first=True)
        return was_empty or self._number(first, 2) > 0

    def _number(self, place: int, size: int) -> int:
        found = self.data[place : place + size]
        if len(found) != size:
            raise NotUnderstood
        return int.from_bytes(found, self._order)

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise NotUnderstood

    def _directory(self, start: int, *, is_first: bool) -> None:
        place, end = start + 2, start + 2 + self._number(start, 2) * _ENTRY
        if end > len(self.data):
            raise NotUnderstood
        while place < end:
            self._spend(_ENTRY)
            if is_first and self._number(place, 2) == _EXIF_DIRECTORY:
                self._directory(self._number(place + 8, 4), is_first=False)
            if self._goes(place):
                self._remove(start, place, end)
                end -= _ENTRY
            else:
                place += _ENTRY

    def _goes(self, entry: int) -> bool:
        """Judges the text of an entry, and replaces it."""
        tag, kind, count = self._number(entry, 2), self._number(entry + 2, 2), self._number(entry + 4, 4)
        lead = len(_ASCII_COMMENT) if tag == _USER_COMMENT else 0
        kinds = _BYTE_KINDS if self._editing.is_thorough else _COMMENT_KINDS if lead else _TEXT_KINDS
        if kind not in kinds or count <= max(4, lead):
            return False
        start = self._number(entry + 8, 4)
        written = bytes(self.data[start : start + count])
        if len(written) != count:
            raise NotUnderstood
        self._spend(count)
        is_plain = kind in _TEXT_KINDS if not lead else written.startswith(_ASCII_COMMENT)
        text = written[lead:].rstrip(b"\0") if is_plain else self._decoded(written[lead:])
        found = _KEY.match(text)
        judged = self._editing.judge(found[1].decode() if found else "", text[found.end() :] if found else text)
        if judged == GONE and text:
            self.data[start : start + count] = bytes(count)
            return True
        if judged is not None and is_plain:
            place = start + lead + (found.end() if found else 0)
            self.data[place : place + len(judged)] = judged
        return False

    def _decoded(self, written: bytes) -> bytes:
        """A text of two bytes a letter, in either order, as UTF-8; b"" where such a text stays anyway."""
        if not self._editing.is_thorough:
            return b""
        zeros = [written[place::2].count(0) for place in (0, 1)]
        if max(zeros) == 0:
            return written
        order = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return written.decode(order, "replace").rstrip("\0").encode("utf-8", "replace")

    def _remove(self, start: int, entry: int, end: int) -> None:
        """The entries behind it move up, and so does where the next directory is."""
        after = self.data[entry + _ENTRY : end + 4]
        self.data[entry : entry + len(after)] = after
        vacant = entry + len(after)
        self.data[vacant : end + 4] = bytes(len(self.data[vacant : end + 4]))
        count = self._number(start, 2)
        if not count:  # a text of this directory lay over its head
            raise NotUnderstood
        self.data[start : start + 2] = (count - 1).to_bytes(2, self._order)

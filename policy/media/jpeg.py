"""JPEG (ITU-T T.81, B.1): Exif in APP1, and comments."""

from __future__ import annotations

from typing import Final

from policy.media import exif
from policy.media.editing import GONE, Editing, NotUnderstood, Reading, big

MARK: Final = b"\xff\xd8\xff"
_APP1, _COMMENT = 0xE1, 0xFE
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_LAST: Final = frozenset({0xD9, 0xDA})
"""The end of the picture, and the begin of its data."""


def jpeg(editing: Editing) -> Reading:
    offset = 2
    while True:
        editing.count()
        head = yield from editing.exactly(offset, 4)
        if head[0] != 0xFF or head[1] in _LAST:
            return
        if head[1] == 0xFF or head[1] in _BARE:
            offset += 1 if head[1] == 0xFF else 2
            continue
        size = 2 + big(head, 2, 2)
        if size < 4:
            raise NotUnderstood
        if head[1] in (_APP1, _COMMENT):
            segment = yield from editing.exactly(offset, size)
            editing.replace(offset, segment, _judged(editing, segment))
        offset += size


def _judged(editing: Editing, segment: bytes) -> bytes:
    data = segment[4:]
    if segment[1] == _APP1 and not data.startswith(exif.MARK):
        return segment
    found = editing.judge("comment", data) if segment[1] == _COMMENT else exif.rewrite(data, editing.judge)
    if found is None:
        return segment
    return GONE if found == GONE else segment[:4] + found

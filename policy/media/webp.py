"""WebP (RFC 9649): the Exif chunk of a RIFF file."""

from __future__ import annotations

from typing import Final

from policy.media import exif
from policy.media.editing import GONE, Edit, Editing, NotUnderstood, Read, Reading, little

MARK: Final = b"RIFF"
_HEAD: Final = 8
_EXIF_FLAG: Final = 0x08
"""In the first byte of VP8X (2.7)."""


def webp(editing: Editing) -> Reading:
    head = yield from editing.exactly(0, 12)
    if head[8:] != b"WEBP":
        raise NotUnderstood
    offset, end = 12, min(editing.size, little(head, 4) + 8)
    gone_bytes = flags_at = flags = 0
    while offset + _HEAD <= end:
        editing.count()
        found = (yield Read(offset, _HEAD + 1)).ljust(_HEAD + 1, b"\0")  # a last chunk may be empty
        stop = _HEAD + little(found, 4)
        size = stop + stop % 2
        if found[:4] == b"VP8X":
            flags_at, flags = offset + _HEAD, found[_HEAD]
        elif found[:4] == b"EXIF":
            chunk = yield from editing.exactly(offset, size)
            judged = exif.rewrite(chunk[_HEAD:stop], editing.judge)
            gone_bytes += size if judged == GONE else 0
            new = GONE if judged == GONE else chunk[:_HEAD] + judged + chunk[stop:]
            editing.replace(offset, chunk, new)
        offset += size
    if gone_bytes:
        _tell_without(editing, little(head, 4) - gone_bytes, flags_at, flags)


def _tell_without(editing: Editing, riff_size: int, flags_at: int, flags: int) -> None:
    """The file says how long it is, and that it has Exif."""
    editing.edits.append(Edit(4, 4, riff_size.to_bytes(4, "little")))
    if flags & _EXIF_FLAG:
        editing.edits.append(Edit(flags_at, 1, bytes([flags ^ _EXIF_FLAG])))
    editing.edits.sort(key=lambda edit: edit.offset)

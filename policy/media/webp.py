"""WebP (RFC 9649): the chunks of a RIFF file for Exif and XMP."""

from __future__ import annotations

from typing import Final

from policy.media import exif
from policy.media.editing import GONE, Edit, Editing, NotUnderstood, Read, Reading, little
from policy.media.workflow_texts import XMP

MARK: Final = b"RIFF"
_HEAD: Final = 8
_FLAGS: Final = {b"EXIF": 0x08, b"XMP ": 0x04}
"""In the first byte of VP8X (2.7)."""
_WITHOUT_TEXTS: Final = frozenset((b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))


def webp(editing: Editing) -> Reading:
    head = yield from editing.exactly(0, 12)
    if head[8:] != b"WEBP":
        raise NotUnderstood
    offset, end = 12, min(editing.size, little(head, 4) + 8)
    gone_bytes = flags_at = flags = gone_flags = 0
    while offset + _HEAD <= end:
        editing.count()
        found = (yield Read(offset, _HEAD + 1)).ljust(_HEAD + 1, b"\0")  # a last chunk may be empty
        stop = _HEAD + little(found, 4)
        size = stop + stop % 2
        if offset + size > end:  # it goes on behind the end that the file tells
            editing.pass_over()
        if found[:4] == b"VP8X":
            flags_at, flags = offset + _HEAD, found[_HEAD]
        elif found[:4] in _FLAGS:
            chunk = yield from editing.exactly(offset, size)
            new = _judged(editing, chunk, stop)
            if new == GONE:
                gone_bytes += size
                gone_flags |= _FLAGS[found[:4]]
            editing.replace(offset, chunk, new)
        elif found[:4] not in _WITHOUT_TEXTS:
            editing.pass_over()
        offset += size
    if offset < editing.size:
        editing.pass_over()
    if gone_bytes:
        _tell_without(editing, little(head, 4) - gone_bytes, flags_at, flags, gone_flags)


def _judged(editing: Editing, chunk: bytes, stop: int) -> bytes:
    data = chunk[_HEAD:stop]
    found = exif.rewrite(data, editing) if chunk.startswith(b"EXIF") else editing.judge(XMP, data)
    if found is None:
        return chunk
    return GONE if found == GONE else chunk[:_HEAD] + found + chunk[stop:]


def _tell_without(editing: Editing, riff_size: int, flags_at: int, flags: int, gone_flags: int) -> None:
    """The file says how long it is, and that it has Exif or XMP."""
    editing.edits.append(Edit(4, 4, riff_size.to_bytes(4, "little")))
    if flags & gone_flags:
        editing.edits.append(Edit(flags_at, 1, bytes([flags & ~gone_flags])))
    editing.edits.sort(key=lambda edit: edit.offset)

"""JPEG (ITU-T T.81, B.1): Exif and XMP in APP1, Photoshop's resources with IPTC in APP13, and comments."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from policy.media import exif
from policy.media.editing import GONE, Editing, NotUnderstood, Read, Reading, big
from policy.media.workflow_texts import PHOTOSHOP, XMP

MARK: Final = b"\xff\xd8\xff"
_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_APPLICATIONS: Final = range(0xE0, 0xF0)
_TEXTS: Final = frozenset({_APP1, _APP13, _COMMENT})
_KEYS: Final = (
    (_APP1, b"http://ns.adobe.com/xap/1.0/\0", XMP),
    (_APP1, b"http://ns.adobe.com/xmp/extension/\0", XMP),
    (_APP13, b"Photoshop 3.0\0", PHOTOSHOP),
)
"""XMP Specification, part 3, 1.1.3."""
_WITHOUT_TEXTS: Final = ((_APP0, b"JFIF\0"), (_APP2, b"ICC_PROFILE\0"), (_APP14, b"Adobe"))
_LONGEST_NAME: Final = 12
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_END, _SCAN = 0xD9, 0xDA
"""The end of the picture, and the begin of its data."""
_AFTER_SCAN: Final = re.compile(rb"\xff[^\0\xd0-\xd7\xff]", re.DOTALL)
"""B.1.1.5: in the data, each such byte is followed by a zero or is part of a marker; those that restart belong to the data.

SECURITY: of a run of such bytes the last one alone is looked for, since each would be the beginning of another run.
"""
_PIECE_BYTES: Final = 64 * 1024


def jpeg(editing: Editing) -> Reading:
    offset = yield from _segments(editing, 2)
    # Nothing that ComfyUI writes stands behind the begin of the data; others may put segments between parts of it.
    while editing.is_thorough:
        head = yield from editing.exactly(offset, 2)
        if head[0] != 0xFF:
            raise NotUnderstood
        offset += 2
        if head[1] == _END:
            if offset < editing.size:
                editing.pass_over()
            return
        offset = yield from _data(editing, offset)
        offset = yield from _segments(editing, offset)


def _segments(editing: Editing, offset: int) -> Generator[Read, bytes, int]:
    """→ where something else begins."""
    while True:
        editing.count()
        head = yield Read(offset, 4)
        if len(head) < 2 or head[0] != 0xFF or head[1] in (_END, _SCAN):
            return offset
        if head[1] == 0xFF or head[1] in _BARE:
            offset += 1 if head[1] == 0xFF else 2
            continue
        size = 2 + big(head, 2, 2)
        if size < 4:
            raise NotUnderstood
        if head[1] in _TEXTS:
            segment = yield from editing.exactly(offset, size)
            editing.replace(offset, segment, _judged(editing, segment))
        elif head[1] in _APPLICATIONS:
            name = (yield Read(offset + 4, _LONGEST_NAME))[: size - 4]
            if not any(head[1] == marker and name.startswith(known) for marker, known in _WITHOUT_TEXTS):
                editing.pass_over()
        offset += size


def _data(editing: Editing, offset: int) -> Generator[Read, bytes, int]:
    """offset: of the head of a scan, behind its marker. → where its data ends."""
    offset += big((yield from editing.exactly(offset, 2)), 0, 2)
    while True:
        editing.count()
        piece = yield Read(offset, _PIECE_BYTES)
        found = _AFTER_SCAN.search(piece)
        if found is not None:
            return offset + found.end() - 2
        if len(piece) < _PIECE_BYTES:
            raise NotUnderstood
        offset += len(piece) - 1


def _judged(editing: Editing, segment: bytes) -> bytes:
    marker, data = segment[1], segment[4:]
    if marker == _APP1 and data.startswith(exif.MARK):
        found: bytes | None = exif.rewrite(data, editing)
    elif marker == _COMMENT:
        found = editing.judge("comment", data)
    else:
        key = next((key for of, name, key in _KEYS if of == marker and data.startswith(name)), None)
        if key is None:
            editing.pass_over()
            return segment
        found = editing.judge(key, data)
    if found is None:
        return segment
    return GONE if found == GONE else segment[:4] + found

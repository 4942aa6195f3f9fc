"""OpenEXR (File Layout): attributes of the first header. What goes leaves its room empty, since the file counts from its begin."""

from __future__ import annotations

from typing import Final

from policy.media.editing import GONE, Editing, NotUnderstood, Read, Reading, little

MARK: Final = b"\x76\x2f\x31\x01"
_SEVERAL: Final = 0x10
"""In the second byte of the version: several parts, each with a header."""
_NAMES: Final = 520
"""Bytes in which the name and the type of an attribute end, each of at most 255, and its length."""


def exr(editing: Editing) -> Reading:
    head = yield from editing.exactly(0, 8)
    if head[5] & _SEVERAL:
        editing.pass_over()
    offset = 8
    while True:
        editing.count()
        found = yield Read(offset, _NAMES)
        name, _, rest = found.partition(b"\0")
        if not name:
            return
        kind, mark, rest = rest.partition(b"\0")
        if not mark or len(rest) < 4:
            raise NotUnderstood
        offset += len(name) + len(kind) + 6
        size = little(rest, 0)
        if kind == b"string":
            text = yield from editing.exactly(offset, size)
            judged = editing.judge(name.decode("utf-8", "replace"), text)
            if judged is not None:
                editing.replace(offset, text, b" " * size if judged == GONE else judged)
        else:
            yield from editing.look_at(offset, size)
        offset += size

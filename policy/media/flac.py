"""FLAC (RFC 9639, 8): the block of Vorbis comments."""

from __future__ import annotations

from typing import Final

from policy.media import vorbis_comment
from policy.media.editing import Editing, Reading, big

MARK: Final = b"fLaC"
_COMMENTS, _PADDING, _LAST = 4, 1, 0x80
_WITHOUT_TEXTS: Final = frozenset({0, 3})
"""What the stream is, and where to seek in it."""
_HEAD: Final = 4


def flac(editing: Editing) -> Reading:
    offset, is_last = len(MARK), False
    while not is_last:
        editing.count()
        head = yield from editing.exactly(offset, _HEAD)
        is_last = bool(head[0] & _LAST)
        size = _HEAD + big(head, 1, 3)
        if head[0] & ~_LAST == _COMMENTS:
            block = yield from editing.exactly(offset, size)
            comments, end = vorbis_comment.rewrite(block[_HEAD:], editing.judge)
            made = _block(_COMMENTS, is_last, comments + block[_HEAD + end :], size)
            editing.leave(made)
            editing.replace(offset, block, made)
        elif head[0] & ~_LAST not in _WITHOUT_TEXTS:
            yield from editing.look_at(offset, size)
        offset += size


def _block(kind: int, is_last: bool, data: bytes, size: int) -> bytes:
    """So many bytes: what is left of them becomes a block of padding. What goes is longer than such a block's head."""
    room = size - _HEAD - len(data)
    flag = _LAST if is_last else 0
    whole = bytes([kind | (0 if room else flag)]) + len(data).to_bytes(3, "big") + data
    if room:
        whole += bytes([_PADDING | flag]) + (room - _HEAD).to_bytes(3, "big") + bytes(room - _HEAD)
    return whole

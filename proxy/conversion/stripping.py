"""Writes a file again without the workflow that ComfyUI wrote into it; its picture, film or sound stays as it is, byte by byte."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from policy.media.editing import size_after
from policy.media.formats import find_edits, without_workflow
from proxy.conversion.order import NotConverted, Order

_PIECE_BYTES: Final = 1024**2


def write_stripped(source: BinaryIO, target: BinaryIO, order: Order) -> None:
    """Raises NotConverted, OSError."""
    size = os.fstat(source.fileno()).st_size

    def read(offset: int, count: int) -> bytes:
        source.seek(offset)
        return source.read(count)

    media = without_workflow(size)
    edits = find_edits(media, read)
    if not media.is_understood:
        # SECURITY: what is not understood may have it all the same.
        raise NotConverted("It is no file of a kind whose workflow can be taken out, or it is damaged.")
    if size_after(size, edits) > order.max_bytes:
        raise NotConverted(f"It would have more than {order.max_bytes} bytes.")
    done = 0
    for edit in edits:
        _copy(source, target, done, edit.offset)
        target.write(edit.replacement)
        done = edit.offset + edit.length
    _copy(source, target, done, size)


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        piece = source.read(min(_PIECE_BYTES, end - start))
        if not piece:
            raise NotConverted("It became shorter while it was read.")
        target.write(piece)
        start += len(piece)

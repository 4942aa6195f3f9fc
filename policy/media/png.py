"""PNG (third edition, 5 and 11): text chunks, and the chunk that ComfyUI makes for animations."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

from policy.media.editing import GONE, Editing, Reading, big

MARK: Final = b"\x89PNG\r\n\x1a\n"
_AROUND: Final = 12
"""Bytes of a chunk that are not its data: length, kind, checksum."""


def png(editing: Editing) -> Reading:
    offset = len(MARK)
    while True:
        editing.count()
        head = yield from editing.exactly(offset, 8)
        size, kind = big(head, 0) + _AROUND, head[4:]
        if kind in _TEXT_STARTS and editing.is_held(size):
            chunk = yield from editing.exactly(offset, size)
            editing.replace(offset, chunk, _judged(editing, chunk))
        offset += size
        if kind == b"IEND":
            return


def _judged(editing: Editing, chunk: bytes) -> bytes:
    kind, data = chunk[4:8], chunk[8:-4]
    key, mark, rest = data.partition(b"\0")
    start = _TEXT_STARTS[kind](rest) if mark else None
    # SECURITY: compressed texts are judged by their key alone: a few bytes may unpack to any number.
    text = b"" if start is None else rest[start:]
    found = editing.judge(key.decode("latin-1"), text)
    if found is None:
        return chunk
    return GONE if found == GONE else _chunk(kind, data[: len(data) - len(text)] + found)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _start_in_itxt(rest: bytes) -> int | None:
    """11.3.3.4: compression flag and method, language, translated keyword."""
    if rest[:1] != b"\0":
        return None
    language_end = rest.find(b"\0", 2)
    keyword_end = rest.find(b"\0", language_end + 1) if language_end >= 0 else -1
    return keyword_end + 1 if keyword_end >= 0 else None


def _at_once(_: bytes) -> int:
    return 0


def _compressed(_: bytes) -> None:
    return None


_TEXT_STARTS: Final[Mapping[bytes, Callable[[bytes], int | None]]] = {
    b"tEXt": _at_once,
    b"zTXt": _compressed,
    b"iTXt": _start_in_itxt,
    b"comf": _at_once,  # comfy_api/latest/_ui.py, _create_animated_png_metadata
}

"""PNG (third edition, 5 and 11): text chunks, Exif, and the chunk that ComfyUI makes for animations."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

from policy.media import exif
from policy.media.editing import GONE, Editing, NotUnderstood, Reading, big

MARK: Final = b"\x89PNG\r\n\x1a\n"
_AROUND: Final = 12
"""Bytes of a chunk that are not its data: length, kind, checksum."""
_EXIF: Final = b"eXIf"
"""11.3.4.6"""
_WITHOUT_TEXTS: Final = frozenset(
    (
        b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI",
        b"bKGD", b"hIST", b"pHYs", b"sPLT", b"tIME", b"acTL", b"fcTL", b"fdAT",
    )
)  # fmt: skip
"""11.2 and 11.3: the picture, its colors, sizes and frames."""
_RAW_PROFILE: Final = b"Raw profile type "
"""ImageMagick's Exif, XMP and IPTC, in digits of hexadecimal numbers."""


def png(editing: Editing) -> Reading:
    offset = len(MARK)
    while True:
        editing.count()
        head = yield from editing.exactly(offset, 8)
        size, kind = big(head, 0) + _AROUND, head[4:]
        if kind in _TEXT_STARTS or kind == _EXIF:
            if editing.is_held(size):
                chunk = yield from editing.exactly(offset, size)
                judged = _judged_exif(editing, chunk) if kind == _EXIF else _judged(editing, chunk)
                editing.replace(offset, chunk, judged)
        elif kind not in _WITHOUT_TEXTS:
            editing.pass_over()
        offset += size
        if kind == b"IEND":
            break
    if offset < editing.size:
        editing.pass_over()


def _judged_exif(editing: Editing, chunk: bytes) -> bytes:
    try:
        found = exif.rewrite(chunk[8:-4], editing)
    except NotUnderstood:
        editing.pass_over()
        return chunk
    return GONE if found == GONE else _chunk(_EXIF, found)


def _judged(editing: Editing, chunk: bytes) -> bytes:
    kind, data = chunk[4:8], chunk[8:-4]
    key, mark, rest = data.partition(b"\0")
    start = _TEXT_STARTS[kind](rest) if mark else None
    # SECURITY: compressed texts are judged by their key alone: a few bytes may unpack to any number.
    text = b"" if start is None else rest[start:]
    found = editing.judge(key.decode("latin-1"), text)
    if found is None:
        if start is None or key.startswith(_RAW_PROFILE):
            editing.pass_over()
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

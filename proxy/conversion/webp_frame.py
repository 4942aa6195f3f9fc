"""An animated WebP (RFC 9649, 2.7) of one frame, which no encoder writes: it would be a picture without a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_ANIMATED, _TRANSPARENT, _PROFILE = 0x02, 0x10, 0x20
_FRAME_PARTS: Final = frozenset((b"ALPH", b"VP8 "))
_NO_BACKGROUND: Final = bytes(4)


def is_animated(webp: bytes) -> bool:
    return webp[12:16] == b"VP8X" and bool(webp[20] & _ANIMATED)


def animation_of(still: bytes, size: tuple[int, int], duration_ms: int, loops: int) -> bytes:
    """still: a whole WebP, lossy and not animated. size: its width and height. duration_ms: of at most 24 bits. loops: how often it is shown, 0 for ever."""
    chunks = dict(_chunks(still))
    profile = _chunk(b"ICCP", chunks[b"ICCP"]) if b"ICCP" in chunks else b""
    flags = _ANIMATED | (_TRANSPARENT if b"ALPH" in chunks else 0) | (_PROFILE if profile else 0)
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    frame = bytes(6) + sides + duration_ms.to_bytes(3, "little") + b"\0"
    frame += b"".join(_chunk(kind, data) for kind, data in chunks.items() if kind in _FRAME_PARTS)
    head = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)
    loop = _chunk(b"ANIM", _NO_BACKGROUND + min(loops, 0xFFFF).to_bytes(2, "little"))
    return _chunk(b"RIFF", b"WEBP" + head + profile + loop + _chunk(b"ANMF", frame))


def _chunks(riff: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place < len(riff):
        end = place + 8 + int.from_bytes(riff[place + 4 : place + 8], "little")
        yield riff[place : place + 4], riff[place + 8 : end]
        place = end + end % 2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)

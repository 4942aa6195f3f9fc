"""How many pixels a picture has, read from its head: what making a smaller one of it costs, whatever its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from policy.violation import Reason, Violation

HEAD_BYTES: Final = 64 * 1024
"""Of a file, in which its size is looked for; in a JPEG it may stand behind a thumbnail."""
_JPEG_SIZES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_BARE: Final = frozenset({0x01, 0xFF, *range(0xD0, 0xDA)})


def check_pixels(head: bytes, max_pixels: int) -> None:
    """Raises Violation(picture-too-large). What does not say its size passes: then other bounds hold."""
    pixels = pixels_of(head)
    if pixels is not None and pixels > max_pixels:
        raise Violation(
            Reason.PICTURE_TOO_LARGE,
            "The picture has too many pixels.",
            f"It has {pixels}; at most {max_pixels} are accepted. The operator sets max_picture_pixels in config.toml.",
        )


def pixels_of(head: bytes) -> int | None:
    """Width times height of a PNG, JPEG, WebP, GIF or BMP; None when its head does not say so."""
    for mark, read in _KINDS:
        if head.startswith(mark):
            return read(head)
    return None


def _big(head: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(head[start : start + size], "big")


def _little(head: bytes, start: int, size: int) -> int:
    return int.from_bytes(head[start : start + size], "little")


def _png(head: bytes) -> int | None:
    """PNG, 11.2.2: IHDR comes first."""
    return _big(head, 16) * _big(head, 20) if len(head) >= 24 else None


def _gif(head: bytes) -> int | None:
    return _little(head, 6, 2) * _little(head, 8, 2) if len(head) >= 10 else None


def _bmp(head: bytes) -> int | None:
    """The height is negative where rows go from the top."""
    if len(head) < 26 or _little(head, 14, 4) < 40:
        return None
    return _little(head, 18, 4) * abs(int.from_bytes(head[22:26], "little", signed=True))


def _webp(head: bytes) -> int | None:
    """RFC 9649, 2.5 to 2.7: three kinds of first chunk."""
    if len(head) < 30 or head[8:12] != b"WEBP":
        return None
    match head[12:16]:
        case b"VP8X":
            return (_little(head, 24, 3) + 1) * (_little(head, 27, 3) + 1)
        case b"VP8L":
            bits = _little(head, 21, 4)
            return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            return (_little(head, 26, 2) & 0x3FFF) * (_little(head, 28, 2) & 0x3FFF)
    return None


def _jpeg(head: bytes) -> int | None:
    """ITU-T T.81, B.2.2: the first frame header, behind any number of other segments."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker in _JPEG_SIZES:
            return _big(head, place + 5, 2) * _big(head, place + 7, 2)
        place += 1 if marker == 0xFF else 2 if marker in _JPEG_BARE else 2 + max(2, _big(head, place + 2, 2))
    return None


_KINDS: Final[tuple[tuple[bytes, Callable[[bytes], int | None]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    (b"BM", _bmp),
)

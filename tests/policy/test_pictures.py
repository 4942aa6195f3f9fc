"""Sizes of pictures, read from their heads."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from PIL import Image

from policy.pictures import check_pixels, pixels_of
from policy.violation import Reason, Violation


def picture(kind: str, width: int = 321, height: int = 123, **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, kind, **more)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + bytes(30_000)}), ("GIF", {}),
        ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0" + bytes(100)}),
    ],
)  # fmt: skip
def test_the_size_stands_in_the_head(kind: str, more: dict[str, Any]) -> None:
    assert pixels_of(picture(kind, **more)) == 321 * 123


def test_rows_from_the_top_of_a_bmp() -> None:
    head = bytearray(picture("BMP"))
    head[22:26] = struct.pack("<i", -123)
    assert pixels_of(bytes(head)) == 321 * 123


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_head_that_was_cut_says_nothing_and_breaks_nothing(kind: str) -> None:
    whole = picture(kind)
    for length in range(30):
        assert pixels_of(whole[:length]) in (None, 321 * 123)


@pytest.mark.parametrize(
    "head",
    [
        b"", b"plain text", b"RIFF....WAVE" + bytes(30), b"RIFF....WEBPXXXX" + bytes(30), b"BM" + bytes(30),
        b"\xff\xd8\xff\xff\xff\x01\xff\xd9" + bytes(30), b"\xff\xd8\xff\xe0\x00\x00" + bytes(30),
    ],
)  # fmt: skip
def test_what_is_no_such_picture_has_no_size(head: bytes) -> None:
    assert pixels_of(head) is None


def test_so_many_pixels_and_no_more() -> None:
    check_pixels(picture("PNG"), 321 * 123)
    check_pixels(b"plain text", 1)
    with pytest.raises(Violation) as caught:
        check_pixels(picture("PNG"), 321 * 123 - 1)
    assert caught.value.reason is Reason.PICTURE_TOO_LARGE
    assert "max_picture_pixels" in caught.value.details

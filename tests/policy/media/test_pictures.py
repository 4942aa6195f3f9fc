"""Texts in PNG, JPEG and WebP, of other writers than ComfyUI too."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from tests.policy.media.files import FILLED, SALTED, is_understood, judged, own, picture, stripped, stripping


def exif_of(prompt: str = f"prompt:{SALTED}", **more: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = prompt
    exif[0x0112] = 6  # turned
    for tag, value in more.items():
        exif[int(tag[1:], 16)] = value
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_exif_keeps_what_is_no_workflow(kind: str) -> None:
    data = picture(kind, exif=exif_of(x010F='workflow:{"nodes": []}', x010E="a photo: mine", x0131="Pillow"))
    made = Image.open(io.BytesIO(own(data))).getexif()
    assert made[0x0110] == f"prompt:{FILLED.decode()}"
    assert made[0x010F] == 'workflow:{"nodes": []}'
    rest = Image.open(io.BytesIO(stripped(data))).getexif()
    assert dict(rest) == {0x0112: 6, 0x010E: "a photo: mine", 0x0131: "Pillow"}
    assert b"class_type" not in stripped(data)
    assert len(stripped(data)) == len(data)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_exif_of_a_workflow_alone_goes_as_a_whole(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{SALTED}"
    data = picture(kind, exif=exif, icc_profile=b"a profile")
    made = stripped(data)
    assert b"exif" not in made.lower()
    opened = Image.open(io.BytesIO(made))
    opened.load()
    assert opened.info["icc_profile"] == b"a profile"
    assert not opened.getexif()
    assert own(data) != data


def test_a_webp_without_flags_and_with_two_exif_chunks() -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{SALTED}"
    chunk = b"EXIF" + struct.pack("<I", len(exif.tobytes())) + exif.tobytes() + bytes(len(exif.tobytes()) % 2)
    body = b"WEBP" + chunk + b"ALPH" + bytes(4) + chunk
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    assert stripped(data) == b"RIFF" + struct.pack("<I", 12) + b"WEBPALPH" + bytes(4)
    assert stripped(b"RIFF" + bytes(4) + b"WAVE") == b"RIFF" + bytes(4) + b"WAVE"


def test_a_comment_in_exif_and_in_jpeg() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + SALTED.encode()
    data = picture("JPEG", exif=exif, comment=json.dumps({"prompt": json.loads(SALTED)}))
    made = own(data)
    assert b"comfygate" not in made
    assert Image.open(io.BytesIO(made)).getexif().get_ifd(0x8769)[0x9286].rstrip(b"\0") == b"ASCII\0\0\0" + FILLED
    rest = Image.open(io.BytesIO(stripped(data)))
    assert 0x9286 not in rest.getexif().get_ifd(0x8769)
    assert "comment" not in rest.info
    foreign = Image.Exif()
    foreign.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "ein schönes Bild".encode("utf-16-le")
    kept = picture("JPEG", exif=foreign, comment="no workflow")
    assert stripping(kept) == (kept, True)


def _tiff(*entries: bytes, rest: bytes = b"") -> bytes:
    return b"MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries) + bytes(4) + rest


@pytest.mark.parametrize(
    "exif",
    [
        b"", b"II*\0", b"MM\0*\0\0\0\x08\0\x09", b"MM\0*\xff\0\0\0",
        _tiff(struct.pack(">HHII", 0x0110, 2, 99, 20)),
        # Two entries that name the same bytes, more of them than there are.
        _tiff(*(struct.pack(">HHII", 0x0110, 2, 40, 8),) * 2),
        # A text that lies over the directory's head.
        _tiff(struct.pack(">HHII", 0x0110, 2, 30, 4), rest=b"x" * 20),
    ],
)  # fmt: skip
def test_exif_that_is_damaged_is_not_understood(exif: bytes) -> None:
    data = b"\xff\xd8\xff\xe1" + struct.pack(">H", 8 + len(exif)) + b"Exif\0\0" + exif + b"\xff\xda\0\0"
    found, is_known = judged(lambda key, text: b"", data)
    assert found == data
    assert not is_known


def test_jpeg_with_bytes_between_its_segments() -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(SALTED)) + SALTED.encode()
    scan = b"\xff\xda\0\x02" + b"a\xff\0b\xff\xd0\xff"
    data = b"\xff\xd8\xff\xff\xff\x01" + comment + scan + b"\xff\xd9"
    assert stripping(data) == (data.replace(comment, b""), True)
    assert not stripping(data + b"\0")[1]
    assert not stripping(data[:-1])[1]
    assert not stripping(b"\xff\xd8" + comment + b"\0\0")[1]
    other = b"\xff\xd8\xff\xe1\0\x06http" + comment + scan
    assert is_understood(other)
    assert not stripping(other + b"\xff\xd9")[1]
    for between in (b"x", b"\xff"):
        long = b"\xff\xd8" + scan[:-1] + between * 200_000 + scan + b"\xff\xd9"
        assert stripping(long) == (long, True)
    assert is_understood(b"\xff\xd8\xff\xd9\0\0")
    assert not is_understood(b"\xff\xd8\xff\xe0\0\x01")


def test_other_text_chunks_of_png() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("prompt", SALTED, "en", "Auftrag")
    info.add_itxt("workflow", SALTED, zip=True)
    info.add_text("prompt", SALTED, zip=True)
    info.add_text("Software", "x")
    data = picture("PNG", pnginfo=info)
    made = own(data)
    opened = Image.open(io.BytesIO(made))
    opened.load()
    assert SALTED.encode() not in made
    assert FILLED in made
    rest = Image.open(io.BytesIO(stripped(data)))
    rest.load()
    assert rest.info == {"Software": "x"}


@pytest.mark.parametrize("text", [b"\1\0", b"\0\0en", b"\0\0en\0title", b""])
def test_text_chunks_of_png_that_are_cut(text: bytes) -> None:
    chunk = b"iTXtother\0" + text
    data = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\0\0tEXt\0\0\0\0\0\0\0\0IEND\xaeB`\x82"
    )  # fmt: skip
    assert stripped(data) == data
    assert is_understood(data)

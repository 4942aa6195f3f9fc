from __future__ import annotations

import pytest

from policy.rules.media import DEFAULT_UPLOAD_TYPES, HEAD_BYTES, UPLOAD_TYPES, check_media
from policy.violation import Reason, Violation

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
EVERYTHING = UPLOAD_TYPES


def is_refused(filename: str, head: bytes, types: frozenset[str] = DEFAULT_UPLOAD_TYPES) -> bool:
    try:
        check_media(filename, head, types)
    except Violation as violation:
        return violation.reason is Reason.FILE_TYPE_REFUSED
    return False


GOOD = [
    ("a.png", PNG),
    ("A.PNG", PNG),
    ("a.b.png", PNG),
    ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
    ("a.jpeg", b"\xff\xd8\xff\xdb"),
    ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 "),
    ("a.gif", b"GIF89a\1\0"),
    ("a.gif", b"GIF87a\1\0"),
    ("a.bmp", b"BM" + bytes(20)),
    ("a.tif", b"II*\0\x08"),
    ("a.tiff", b"MM\0*\0"),
    ("a.avif", b"\0\0\0\x20ftypavif"),
    ("a.wav", b"RIFF\x10\0\0\0WAVEfmt "),
    ("a.mp3", b"ID3\4\0"),
    ("a.mp3", b"\xff\xfb\x90"),
    ("a.flac", b"fLaC\0"),
    ("a.ogg", b"OggS\0"),
    ("a.opus", b"OggS\0"),
    ("a.m4a", b"\0\0\0\x20ftypM4A "),
    ("a.aac", b"\xff\xf1\x50"),
    ("a.aiff", b"FORM\0\0\0\0AIFF"),
    ("a.mp4", b"\0\0\0\x20ftypisom"),
    ("a.mov", b"\0\0\0\x08wide"),
    ("a.webm", b"\x1aE\xdf\xa3\x01"),
    ("a.mkv", b"\x1aE\xdf\xa3\x01"),
    ("a.avi", b"RIFF\0\0\0\0AVI LIST"),
    ("a.mpg", b"\0\0\x01\xba"),
]


@pytest.mark.parametrize(("filename", "head"), GOOD)
def test_media_are_accepted(filename: str, head: bytes) -> None:
    check_media(filename, head, DEFAULT_UPLOAD_TYPES)


@pytest.mark.parametrize(
    ("filename", "head"),
    [
        ("a.glb", b"glTF\2"),
        ("a.gltf", b' {"asset":'),
        ("a.ply", b"ply\nformat"),
        ("a.fbx", b"Kaydara FBX Binary  "),
        ("a.obj", b"v 1 2 3\n"),
        ("a.stl", b"solid x"),
        ("a.pdf", b"%PDF-1.7"),
        ("a.txt", "a text with \u00e9".encode()),
        ("a.txt", b""),
        ("a.latent", b"\x40\0\0\0\0\0\0\0{"),
    ],
)
def test_other_types_are_accepted_where_the_operator_wants_them(filename: str, head: bytes) -> None:
    check_media(filename, head, EVERYTHING)
    assert is_refused(filename, head)


@pytest.mark.parametrize(
    "filename",
    [
        *(
            "a.html.",
            "a.html ",
            "a.html:png",
            "a.png:b.html",
            "a\uff0ehtml",
            "a.ht\u200bml",
            "a.m3u8",
            "a.m3u",
            "a.pls",
            "a.mpd",
            "a.html",
            "a.htm",
            "a.svg",
            "a.xml",
            "a.js",
            "a.css",
        ),
        *(
            "a.mht",
            "a.swf",
            "a.safetensors",
            "a.ckpt",
            "a.pt",
            "a.pth",
            "a.pkl",
            "a.bin",
            "a.gguf",
            "a.py",
            "a.sh",
            "a.exe",
        ),
        *("a.zip", "a.json", "a.png.html", "a.ts", "a.concat"),
    ],
)
@pytest.mark.parametrize("head", [PNG, b"", b"#EXTM3U\n", b"\x80\4pickle"])
def test_types_that_are_not_listed_are_refused(filename: str, head: bytes) -> None:
    assert is_refused(filename, head, EVERYTHING)


@pytest.mark.parametrize(
    ("filename", "head"),
    [
        ("a.png", b""),
        ("a.png", b"\x89PN"),
        ("a.png", b"<html>"),
        ("a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n"),
        ("a.mp4", PNG),
        ("a.wav", b"RIFF\0\0\0\0WEBP"),
        ("a.webp", b"RIFF\0\0\0\0WAVE"),
        ("a.mp3", b"#EXTM3U"),
        ("a.bmp", b"BM"),
        ("a.txt", b"nul \0"),
        ("a.png", b"\x80\4\x95pickle"),
    ],
)
def test_content_that_is_not_what_the_name_says_is_refused(filename: str, head: bytes) -> None:
    assert is_refused(filename, head, EVERYTHING)


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"#EXTM3U\n",
            b"#extm3u",
            b"ffconcat version 1.0\n",
            b"<MPD xmlns=",
            b"<svg xmlns=",
            b"<script>",
            b"<html",
        ),
        *(b"<!DOCTYPE html>", b"<?xml version", b"[playlist]\n", b"<smil>", b"<asx version"),
    ],
)
@pytest.mark.parametrize(
    ("filename", "start"), [("a.txt", b""), ("a.mp3", b"ID3\4"), ("a.bmp", b"BM" + bytes(12)), ("a.stl", b"s")]
)
def test_active_and_listing_content_is_refused(filename: str, start: bytes, text: bytes) -> None:
    assert is_refused(filename, start + text, EVERYTHING)


@pytest.mark.parametrize(
    ("filename", "head"),
    [
        ("0f.png", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("0f.png", b"RIFF\x10\0\0\0WEBPVP8 "),
        ("a.jpg", PNG),
        ("a.heic", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        ("a.wav", b"ID3\4\0"),
        ("a.mp4", b"\x1aE\xdf\xa3\x01"),
        ("a.jfif", b"\xff\xd8\xff\xe0\0\x10JFIF"),
        *((name, PNG) for name in ("blob", "png", "a.", "photo of 12.30", "Mr. Smith at sea", "a ")),
        ("blob", b"fLaC\0"),
        ("blob", b"\0\0\0\x20ftypisom"),
    ],
)
def test_content_of_the_same_family_is_accepted_whatever_the_name(filename: str, head: bytes) -> None:
    check_media(filename, head, DEFAULT_UPLOAD_TYPES)


@pytest.mark.parametrize(
    ("filename", "head"),
    [
        ("a.png", b"fLaC\0"),
        ("a.wav", PNG),
        ("blob", b"%PDF-1.7"),
        ("blob", b"solid x"),
        ("blob", b"a text"),
        ("blob", b"ID3\4<svg"),
        ("blob", b""),
        ("a.heic", b"\0\0\0\x20ftypheic"),
        ("a.psd", b"8BPS\0\1"),
    ],
)
def test_content_of_another_family_is_refused(filename: str, head: bytes) -> None:
    assert is_refused(filename, head, DEFAULT_UPLOAD_TYPES)
    assert is_refused(filename, head, frozenset({"audio"})) or filename == "a.png"


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("heic", b"\0\0\0\x20ftypheic"),
        ("jxl", b"\xff\x0a\1"),
        ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n"),
        ("avif", b"\0\0\0\x20ftypavif"),
        ("exr", b"v/1\x01\2"),
        ("psd", b"8BPS\0\1"),
    ],
)
def test_the_operator_can_add_types(kind: str, head: bytes) -> None:
    for name in (f"a.{kind}", "blob", "a.png"):
        check_media(name, head, frozenset({kind}))
    assert is_refused("a.png", head, frozenset({"audio", "mask"}))


def test_only_the_head_decides() -> None:
    check_media("a.png", PNG + bytes(HEAD_BYTES) + b"<script>", DEFAULT_UPLOAD_TYPES)


def test_masks_alone_are_pictures_with_an_alpha_channel() -> None:
    check_media("a.png", PNG, frozenset({"mask"}))
    assert is_refused("a.jpg", b"\xff\xd8\xff", frozenset({"mask"}))


def test_nothing_is_accepted_when_no_type_is_listed() -> None:
    assert is_refused("a.png", PNG, frozenset())
    assert is_refused("a.png", PNG, frozenset({"unknown"}))
    assert DEFAULT_UPLOAD_TYPES <= UPLOAD_TYPES

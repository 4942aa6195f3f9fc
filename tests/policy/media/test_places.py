"""Every place in which ComfyUI, packs and other programs write a workflow: `strip` takes it out there, or the file is refused.

A row: the format and the place, a file with a workflow there and nowhere else, and what becomes of it.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from policy.media.ogg import checksum
from tests.policy.media.files import REAL, box, chunk, element, own, picture, stripped, stripping

GRAPH = b'{"1": {"class_type": "X", "inputs": {}}}'
TOLD = GRAPH.decode()
WIDE = TOLD.encode("utf-16-le")
PACKET = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="' + GRAPH.replace(b'"', b"&quot;") + b'"/></x:xmpmeta>'
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
GONE, REFUSED = True, False
Row = tuple[str, bytes, bool]


def exif(entries: dict[int, Any] | None = None, detail: dict[int, Any] | None = None) -> bytes:
    made = Image.Exif()
    for tag, told in (entries or {}).items():
        made[tag] = told
    made.get_ifd(0x8769).update(detail or {})
    return made.tobytes()


PREVIEW = (
    b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x0112, 3, 1, 1 << 16, 26)
    + struct.pack(">HHHIII", 1, 0x010E, 2, len(GRAPH), 44, 0) + GRAPH
)  # fmt: skip
"""With a second directory, as cameras have one for a preview."""
EXIFS = (
    ("Exif, prompt", exif({0x0110: f"prompt:{TOLD}"}), GONE),
    ("Exif, another key", exif({0x010E: f"Workflow: {TOLD}"}), GONE),
    ("Exif, other JSON", exif({0x010F: 'seen:{"a": 1}'}), GONE),
    ("Exif, words around it", exif({0x0131: f"made by {TOLD}"}), GONE),
    ("Exif, comment of Windows", exif({0x9C9C: WIDE}), GONE),
    ("Exif, bytes", exif({0x02BC: GRAPH}), GONE),
    ("Exif, user comment", exif(detail={0x9286: b"ASCII\0\0\0" + GRAPH}), GONE),
    ("Exif, user comment in UTF-16", exif(detail={0x9286: b"UNICODE\0" + TOLD.encode("utf-16-be")}), GONE),
    ("Exif, user comment of no encoding", exif(detail={0x9286: bytes(8) + GRAPH}), GONE),
    ("Exif, the preview's", PREVIEW, REFUSED),
    ("Exif, damaged", b"Exif\0\0" + GRAPH, REFUSED),
)


def png(*added: bytes, end: bytes = b"") -> bytes:
    whole = picture("PNG")
    return whole[:33] + b"".join(added) + whole[33:] + end


def text(key: bytes, told: bytes = GRAPH) -> bytes:
    return chunk(b"tEXt", key + b"\0" + told)


def animated_png() -> bytes:
    whole = REAL["animated.png"]
    bare = stripped(whole)
    return bare[:-12] + text(b"prompt") + bare[-12:]


PNGS: tuple[tuple[str, bytes, bool], ...] = (
    *((f"png: {place}", png(chunk(b"eXIf", data.removeprefix(b"Exif\0\0"))), what) for place, data, what in EXIFS),
    ("png: tEXt prompt", png(text(b"prompt")), GONE),
    ("png: tEXt, other JSON", png(text(b"seen", b'{"a": 1}')), GONE),
    ("png: tEXt, words around it", png(text(b"parameters", b"a cat\nWorkflow: " + GRAPH)), GONE),
    ("png: zTXt prompt", png(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(GRAPH))), GONE),
    ("png: zTXt, another key", png(chunk(b"zTXt", b"seen\0\0" + zlib.compress(GRAPH))), REFUSED),
    ("png: iTXt", png(chunk(b"iTXt", b"seen\0\0\0\0\0" + GRAPH)), GONE),
    ("png: iTXt, compressed", png(chunk(b"iTXt", b"seen\0\1\0\0\0" + zlib.compress(GRAPH))), REFUSED),
    ("png: XMP", png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET)), GONE),
    ("png: XMP, compressed", png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PACKET))), GONE),
    ("png: Exif of ImageMagick", png(text(b"Raw profile type exif", b"\nexif\n 40\n" + GRAPH.hex().encode())), REFUSED),
    ("png: comf", png(chunk(b"comf", b"prompt\0" + GRAPH)), GONE),
    ("png: a chunk of its own", png(chunk(b"woRk", zlib.compress(GRAPH))), REFUSED),
    ("png: behind its end", png(end=GRAPH), REFUSED),
    ("png: a picture's data", png(chunk(b"IDAT", GRAPH)), REFUSED),
    ("apng: behind its frames", animated_png(), GONE),
)


def webp(*chunks: tuple[bytes, bytes], end: bytes = b"") -> bytes:
    """With a head that tells of Exif and XMP."""
    body = picture("WEBP", icc_profile=b"a profile")[12:]
    flags = bytes([body[8] | sum({b"EXIF": 8, b"XMP ": 4}.get(kind, 0) for kind, _ in chunks)])
    body = body[:8] + flags + body[9:]
    body += b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body + end


WEBPS = (
    *((f"webp: {place}", webp((b"EXIF", data)), what) for place, data, what in EXIFS),
    ("webp: XMP", webp((b"XMP ", PACKET)), GONE),
    ("webp: a chunk of its own", webp((b"WORK", GRAPH)), REFUSED),
    (
        "webp: a chunk of a frame's own",
        webp((b"ANMF", bytes(16) + b"WORK" + struct.pack("<I", len(GRAPH)) + GRAPH)),
        REFUSED,
    ),
    ("webp: behind its end", webp(end=GRAPH), REFUSED),
    ("webp: over its end", b"RIFF" + struct.pack("<I", 90) + webp((b"XMP ", PACKET))[8:], REFUSED),
)


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*added: bytes, between: bytes = b"", end: bytes = b"") -> bytes:
    whole = picture("JPEG", progressive=True)
    scan = whole.rindex(b"\xff\xda")
    return whole[:2] + b"".join(added) + whole[2:scan] + between + whole[scan:] + end


JPEGS = (
    *((f"jpeg: {place}", jpeg(segment(0xE1, data)), what) for place, data, what in EXIFS),
    ("jpeg: XMP", jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PACKET)), GONE),
    ("jpeg: XMP, extended", jpeg(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40) + PACKET)), GONE),
    ("jpeg: IPTC", jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0" + GRAPH)), GONE),
    ("jpeg: comment", jpeg(segment(0xFE, GRAPH)), GONE),
    ("jpeg: comment between scans", jpeg(between=segment(0xFE, GRAPH)), GONE),
    ("jpeg: APP1 of another kind", jpeg(segment(0xE1, b"mine\0" + GRAPH)), REFUSED),
    ("jpeg: APP11", jpeg(segment(0xEB, b"JP\0\1" + GRAPH)), REFUSED),
    ("jpeg: behind its end", jpeg(end=GRAPH), REFUSED),
)


def items(name: bytes = b"Exif") -> bytes:
    """The boxes of a picture of HEIF, with one item that has the workflow."""
    info = box(b"infe", b"\2\0\0\0\0\1\0\0", name, b"\0")
    return box(
        b"meta", bytes(4), box(b"hdlr", bytes(4), b"\0\0\0\0pict", bytes(13)),
        box(b"iinf", bytes(4), b"\0\1", info), box(b"iloc", bytes(4), b"\x44\0\0\1\0\1\0\0\0\1" + bytes(8)),
    )  # fmt: skip


def heif(brand: bytes, *meta: bytes, others: bytes = b"mif1") -> bytes:
    return box(b"ftyp", brand, bytes(4), others) + b"".join(meta) + box(b"mdat", exif({0x0110: f"prompt:{TOLD}"}))


def avif(**more: Any) -> bytes:
    return picture("AVIF", **more)


HEIFS = (
    ("avif: Exif", avif(exif=exif({0x0110: f"prompt:{TOLD}"})), REFUSED),
    ("avif: XMP", avif(xmp=PACKET), REFUSED),
    ("avif: frames", avif(exif=exif({0x0110: TOLD}), save_all=True, append_images=[Image.new("RGB", (8, 8))]), REFUSED),
    *(
        (f"{brand.decode()}: Exif", heif(brand, items()), REFUSED)
        for brand in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
    ),
    ("heic: under the name of a film", heif(b"isom", items(), others=b"mp42"), REFUSED),
    ("heic: items of a track", heif(b"isom", box(b"moov", items(b"mime")), others=b"mp42"), REFUSED),
    ("heic: brand alone", heif(b"isom", others=b"mp42heic"), REFUSED),
)


def film(*boxes: bytes, top: bytes = b"") -> bytes:
    moov = box(b"moov", box(b"mvhd", bytes(100)), *boxes)
    return box(b"ftyp", b"isom", bytes(4), b"mp42") + top + moov + box(b"mdat", b"film")


def value(told: bytes, kind: int = 1) -> bytes:
    return box(b"data", struct.pack(">II", kind, 0), told)


def listed(*found: bytes) -> bytes:
    return box(b"meta", bytes(4), box(b"hdlr", bytes(25)), box(b"ilst", *found))


def user_data(kind: bytes, told: bytes = GRAPH) -> bytes:
    return box(kind, struct.pack(">HH", len(told), 0x55C4), told)


COMMENT = listed(box(b"\xa9cmt", value(GRAPH)))
OWN_ITEM = box(b"----", box(b"mean", bytes(4), b"x"), box(b"name", bytes(4), b"prompt"), value(b"{}"))
FILMS = (
    ("mp4: comment", film(box(b"udta", COMMENT)), GONE),
    ("mp4: description", film(box(b"udta", listed(box(b"desc", value(GRAPH))))), GONE),
    ("mp4: an item of one's own", film(box(b"udta", listed(OWN_ITEM))), GONE),
    ("mp4: comment in UTF-16", film(box(b"udta", listed(box(b"\xa9cmt", value(WIDE, 2))))), REFUSED),
    ("mp4: keys", REAL["film.mp4"], GONE),
    ("mp4: meta beside the film", film(top=COMMENT), GONE),
    ("mp4: a track's", film(box(b"trak", box(b"udta", COMMENT))), REFUSED),
    ("mp4: XML", film(box(b"meta", bytes(4), box(b"hdlr", bytes(25)), box(b"xml ", GRAPH))), REFUSED),
    ("mp4: XMP", film(top=box(b"uuid", XMP_UUID, PACKET)), GONE),
    ("mp4: XMP in moov", film(box(b"uuid", XMP_UUID, PACKET)), GONE),
    ("mp4: another uuid", film(top=box(b"uuid", bytes(16), GRAPH)), GONE),
    ("mp4: 3GPP's title", film(box(b"udta", box(b"titl", bytes(6), GRAPH))), REFUSED),
    ("mp4: metadata that end before their boxes", film(box(b"udta", box(b"meta")), box(b"uuid", GRAPH)), REFUSED),
    ("mp4: free", film(top=box(b"free", GRAPH)), REFUSED),
    ("mp4: behind an end of user data", film(box(b"udta", bytes(4), COMMENT)), REFUSED),
    ("mp4: subtitles", film() + box(b"mdat", struct.pack(">H", len(GRAPH)) + GRAPH), REFUSED),
    ("mov: packed", film(box(b"cmov", box(b"cmvd", zlib.compress(COMMENT)))), REFUSED),
    ("mov: user data, comment", film(box(b"udta", user_data(b"\xa9cmt"))), GONE),
    ("mov: user data, another text", film(box(b"udta", user_data(b"\xa9des"))), GONE),
    ("mov: user data, two texts", film(box(b"udta", box(b"\xa9nam", b"\0\1\0\0x" + struct.pack(">HH", len(GRAPH), 0), GRAPH))), REFUSED),
    ("mov: user data, cut", film(box(b"udta", box(b"\xa9nam", b"\xff\xff\0\0", GRAPH))), REFUSED),
    ("mov: XMP", film(box(b"udta", box(b"XMP_", PACKET))), GONE),
)  # fmt: skip

TAG, SIMPLE, NAME, STRING = b"\x73\x73", b"\x67\xc8", b"\x45\xa3", b"\x44\x87"


def webm(*elements: bytes) -> bytes:
    head = element(b"\x1a\x45\xdf\xa3", b"\x42\x82\x84webm")
    return head + element(b"\x18\x53\x80\x67", *elements, element(b"\x1f\x43\xb6\x75", b"film"))


def tags(*inner: bytes) -> bytes:
    return webm(element(b"\x12\x54\xc3\x67", element(TAG, element(SIMPLE, *inner))))


WEBMS = (
    ("webm: tag", tags(element(NAME, b"COMMENT"), element(STRING, GRAPH)), GONE),
    ("webm: tag in a tag", tags(element(NAME, b"A"), element(SIMPLE, element(NAME, b"B"), element(STRING, GRAPH))), REFUSED),
    ("webm: tag of bytes", tags(element(NAME, b"A"), element(b"\x44\x85", GRAPH)), REFUSED),
    ("webm: title", webm(element(b"\x15\x49\xa9\x66", element(b"\x7b\xa9", GRAPH))), REFUSED),
    ("webm: chapter", webm(element(b"\x10\x43\xa7\x70", element(b"\x45\xb9", GRAPH))), REFUSED),
    ("webm: attachment", webm(element(b"\x19\x41\xa4\x69", element(b"\x61\xa7", GRAPH))), REFUSED),
    ("webm: subtitles", webm(element(b"\x1f\x43\xb6\x75", element(b"\xa3", b"\x82\0\0\0" + GRAPH))), REFUSED),
    ("webm: void", webm(element(b"\xec", GRAPH)), REFUSED),
)  # fmt: skip


def comments(*texts: bytes) -> bytes:
    told = b"".join(struct.pack("<I", len(each)) + each for each in texts)
    return struct.pack("<I", 3) + b"xyz" + struct.pack("<I", len(texts)) + told


def flac(kind: int, data: bytes) -> bytes:
    first = b"\0" + (34).to_bytes(3, "big") + bytes(34)
    return b"fLaC" + first + bytes([kind | 0x80]) + len(data).to_bytes(3, "big") + data + b"\xff\xf8"


def frame(kind: bytes, data: bytes, flags: int = 0) -> bytes:
    return kind + struct.pack(">IBB", len(data), 0, flags) + data


def mp3(*frames: bytes, sound: bytes = b"\xff\xfb\x90\0" + bytes(400), end: bytes = b"") -> bytes:
    tag = b"".join(frames).ljust(500, b"\0")
    return b"ID3\3\0\0" + bytes([0, 0, len(tag) >> 7, len(tag) & 0x7F]) + tag + sound + end


def ogg(*packets: bytes) -> bytes:
    """One page each. Of Opus, the first is about the sound, the second its comments."""
    made = b""
    for packet in packets:
        lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        head = b"OggS\0" + bytes([2 if packet.startswith(b"OpusHead") else 0]) + bytes(16)
        page = head + bytes(4) + bytes([len(lacing)]) + lacing + packet
        made += head + checksum(page).to_bytes(4, "little") + page[26:]
    return made


def cover(told: bytes) -> bytes:
    picture = png(text(b"prompt", told))
    head = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 8, 8, 24, 0, len(picture))
    return base64.b64encode(head + picture)


OPUS = b"OpusHead" + bytes(11)
PLAIN_OPUS = ogg(OPUS, b"OpusTags" + comments(b"A=B"), b"sound", b"OggS\0\1")
APE = b"APETAGEX" + bytes(24)
SOUNDS = (
    ("flac: comment", flac(4, comments(b"prompt=" + GRAPH)), GONE),
    ("flac: comment without a key", flac(4, comments(GRAPH)), REFUSED),
    ("flac: picture", flac(6, struct.pack(">III", 3, 0, len(GRAPH)) + GRAPH + bytes(20)), REFUSED),
    ("flac: application", flac(2, b"work" + GRAPH), REFUSED),
    ("flac: cover in a comment", flac(4, comments(b"METADATA_BLOCK_PICTURE=" + cover(GRAPH))), GONE),
    ("opus: comment", REAL["sound.opus"], GONE),
    ("opus: cover", ogg(OPUS, b"OpusTags" + comments(b"COVERART=" + cover(GRAPH)), b"sound"), GONE),
    ("opus: another stream behind", PLAIN_OPUS + ogg(OPUS, b"OpusTags" + comments(b'seen={"a": 1}')), REFUSED),
    ("opus: sound", PLAIN_OPUS + ogg(GRAPH), REFUSED),
    ("mp3: TXXX", mp3(frame(b"TXXX", b"\3prompt\0" + GRAPH + b"\0")), GONE),
    ("mp3: TXXX in UTF-16", mp3(frame(b"TXXX", b"\1\xff\xfep\0\0\0\xff\xfe" + WIDE)), REFUSED),
    ("mp3: COMM", mp3(frame(b"COMM", b"\3eng\0" + GRAPH)), REFUSED),
    ("mp3: GEOB", mp3(frame(b"GEOB", b"\0a\0b\0c\0" + GRAPH)), REFUSED),
    ("mp3: packed", mp3(frame(b"TXXX", zlib.compress(GRAPH), flags=0x80)), REFUSED),
    ("mp3: APE", mp3(end=GRAPH + APE), REFUSED),
    ("mp3: APE before ID3v1", mp3(end=GRAPH + APE + b"TAG" + bytes(125)), REFUSED),
    ("mp3: another file behind", mp3(sound=flac(4, comments(b"prompt=" + GRAPH))), REFUSED),
)


def headed(**document: Any) -> bytes:
    head = json.dumps(document).encode()
    return struct.pack("<Q", len(head)) + head


def glb(**document: Any) -> bytes:
    head = json.dumps(document).encode()
    return b"glTF" + struct.pack("<III4s", 2, 20 + len(head), len(head), b"JSON") + head


def exr(kind: bytes, version: int = 2) -> bytes:
    head = b"\x76\x2f\x31\x01" + struct.pack("<I", version)
    return head + b"prompt\0" + kind + b"\0" + struct.pack("<I", len(GRAPH)) + GRAPH + b"\0"


OTHERS = (
    ("latent: metadata", headed(__metadata__={"prompt": TOLD}), GONE),
    ("latent: elsewhere", headed(more={"prompt": TOLD}), REFUSED),
    ("glb: asset", glb(asset={"extras": {"prompt": TOLD}}), GONE),
    ("glb: a scene's", glb(scenes=[{"extras": json.loads(TOLD)}]), REFUSED),
    ("glb: texture", glb() + struct.pack("<I4s", 400, b"BIN\0") + png(text(b"prompt")), REFUSED),
    ("glb: texture in the JSON", glb(images=[{"uri": "data:image/png;base64," + base64.b64encode(png(text(b"prompt"))).decode()}]), REFUSED),
    ("svg: metadata", b"<svg><metadata><![CDATA[" + GRAPH + b"]]></metadata></svg>", GONE),
    ("svg: without CDATA", b"<svg><metadata>" + GRAPH.replace(b'"', b"&quot;") + b"</metadata></svg>", REFUSED),
    ("svg: comment", b"<svg><!--" + GRAPH + b"--></svg>", REFUSED),
    *(
        (f"svg: behind {what}", begin + b"<svg><metadata><![CDATA[" + GRAPH + b"]]></metadata></svg>", GONE)
        for what, begin in (
            ("a comment", b"<!-- (c) -->\n"),
            ("a byte order mark", b"\xef\xbb\xbf"),
            ("lines", b"\r\n \n"),
            ("a declaration", b'<?xml version="1.0"?>\n<!-- x --><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "">'),
            ("a type", b"<!DOCTYPE svg>"),
        )
    ),
    *(
        (f"svg: picture {how}", b'<svg><image href="data:image/png;base64,' + told + b'"/></svg>', REFUSED)
        for how, told in (
            ("in it", base64.b64encode(png(text(b"prompt")))),
            ("of lines", base64.encodebytes(png(text(b"prompt"))).replace(b"\n", b"&#10;\n ")),
            ("as an address", quote(base64.b64encode(png(text(b"prompt"))), safe="").encode()),
        )
    ),
    ("another document of XML", b'<?xml version="1.0"?><kml>' + GRAPH.replace(b"<", b"") + b"</kml>", REFUSED),
    ("exr: string", exr(b"string"), GONE),
    ("exr: strings", exr(b"stringvector"), REFUSED),
    ("exr: parts", exr(b"string", 0x1002), REFUSED),
    ("gif: comment", picture("GIF", comment=GRAPH), REFUSED),
    ("tiff: Exif", picture("TIFF", description=TOLD), REFUSED),
    ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl ", bytes(4)) + box(b"Exif", GRAPH), REFUSED),
    ("jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 ", bytes(4)) + box(b"xml ", GRAPH), REFUSED),
    ("wav: INFO", b"RIFF" + struct.pack("<I", 12 + len(GRAPH)) + b"WAVELISTINFOICMT" + GRAPH, REFUSED),
    ("avi: INFO", b"RIFF" + struct.pack("<I", 12 + len(GRAPH)) + b"AVI LISTINFOICMT" + GRAPH, REFUSED),
)  # fmt: skip
ROWS: list[Row] = [*PNGS, *WEBPS, *JPEGS, *HEIFS, *FILMS, *WEBMS, *SOUNDS, *OTHERS]
SHRINKING = ("png", "apng", "webp", "jpeg", "svg")
"""In which nothing says where other parts are."""
every_row = pytest.mark.parametrize(("name", "data", "goes"), ROWS, ids=[name for name, _, _ in ROWS])


@every_row
def test_a_workflow_goes_from_each_place_or_the_file_is_refused(name: str, data: bytes, *, goes: bool) -> None:
    made, is_said = stripping(data)
    assert is_said == goes
    if goes:
        plain = made.replace(b"\0", b"")
        assert b"class_type" not in plain
        assert b'{"a": 1}' not in plain
        assert made != data
        assert name.startswith(SHRINKING) or len(made) == len(data)
        assert stripping(made) == (made, True)


@every_row
def test_what_has_nothing_of_the_gates_stays_as_it_is(name: str, data: bytes, *, goes: bool) -> None:
    assert own(data) == data or name in ("mp4: keys", "opus: comment")  # which a tenant's job has made


@pytest.mark.parametrize(
    ("name", "data"), [(name, data) for name, data, goes in [*PNGS, *WEBPS, *JPEGS] if goes],
    ids=[name for name, _, goes in [*PNGS, *WEBPS, *JPEGS] if goes],
)  # fmt: skip
def test_the_picture_stays_without_it(name: str, data: bytes) -> None:
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(stripped(data)))
    assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert "xmp" not in after.info

"""What single formats allow besides what ComfyUI writes: other writers, odd lengths, bounds."""

from __future__ import annotations

import json
import struct

import pytest
from PIL import PngImagePlugin

from policy.media.editing import MAX_PARTS, MAX_SPAN_BYTES, apply
from policy.media.formats import own_workflow, without_workflow
from policy.media.streaming import WORK_BYTES, EditedStream
from tests.policy.media.files import (
    ALICE,
    FILLED,
    OWN,
    REAL,
    SALTED,
    box,
    element,
    is_understood,
    judged,
    own,
    picture,
    read_from,
    stripped,
    texts_of,
)


def test_a_text_that_is_too_large_is_passed_over() -> None:
    size = MAX_SPAN_BYTES + 1
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", size) + b"tEXtprompt\0" + bytes(size) + b"\0\0\0\0IEND"
    asked = []
    media = own_workflow(len(data) + size, ALICE)
    while (read := media.asked) is not None:
        asked.append(read.size)
        media.give(data[read.offset : read.offset + read.size])
    assert sum(asked) < 1000
    large = b"<svg" + bytes(MAX_SPAN_BYTES)
    assert not is_understood(large)


def test_a_file_of_too_many_parts_is_not_understood() -> None:
    data = b"\x89PNG\r\n\x1a\n" + (bytes(4) + b"abcd" + bytes(4)) * (MAX_PARTS + 1)
    assert not is_understood(data)


def _value(text: str, kind: int = 1) -> bytes:
    return box(b"data", struct.pack(">II", kind, 0), text.encode())


FTYP = box(b"ftyp", b"isom")


def _film(meta: bytes, *, before: bytes = b"") -> bytes:
    return FTYP + before + box(b"moov", box(b"udta", meta)) + b"\0\0\0\0mdat" + b"film"


def test_a_film_with_itunes_tags_and_long_boxes() -> None:
    comment = json.dumps({"prompt": SALTED, "workflow": {}})
    named = box(b"----", box(b"mean", bytes(4), b"x"), box(b"name", bytes(4), b"prompt"), _value(SALTED))
    items = box(
        b"ilst",
        box(b"\xa9cmt", _value(comment)),
        named,
        box(b"\xa9too", _value("ffmpeg")),
        box(b"covr", _value("{}", 13)),
    )
    long = struct.pack(">I4sQ", 1, b"free", 20) + b"1234"
    data = _film(box(b"meta", bytes(4), box(b"hdlr", bytes(20)), items), before=long)
    made = own(data)
    assert b"comfygate" not in made
    assert json.loads(texts_of(made)["comment"]) == {"prompt": OWN, "workflow": {}}
    assert texts_of(made)["prompt"] == FILLED
    rest = stripped(data)
    assert texts_of(rest) == {"": b"ffmpeg"}
    assert len(rest) == len(data)
    assert rest.endswith(b"mdatfilm")
    assert b"covr" in rest


def test_keys_that_stay_are_counted_anew() -> None:
    keys = box(
        b"keys", bytes(4), struct.pack(">I", 3), *(box(b"mdta", key) for key in (b"prompt", b"encoder", b"title"))
    )
    items = box(
        b"ilst",
        *(box(struct.pack(">I", place), _value(text)) for place, text in ((1, SALTED), (2, "x"), (3, "y"), (9, "z"))),
    )
    data = _film(box(b"meta", box(b"hdlr", bytes(20)), keys, items))  # QuickTime's has no version
    assert texts_of(own(data)) == {"prompt": FILLED, "encoder": b"x", "title": b"y", "": b"z"}
    assert texts_of(stripped(data)) == {"encoder": b"x", "title": b"y", "": b"z"}


@pytest.mark.parametrize(
    "rest", [b"\0\0\0\x07moov" + bytes(8), b"\0\0\0\1moov\0\0", b"\0\0\0\1moov" + bytes(8), _film(box(b"meta", bytes(4), b"\0\0\0\x63hdlr"))]
)  # fmt: skip
def test_boxes_that_lie_are_not_understood(rest: bytes) -> None:
    assert not is_understood(FTYP + rest)


EBML = element(b"\x1a\x45\xdf\xa3", b"\x42\x82\x84webm")


def _simple(name: bytes, text: str) -> bytes:
    return element(b"\x67\xc8", element(b"\x45\xa3", name), element(b"\x44\x87", text.encode()))


def test_tags_of_a_stream_without_sums() -> None:
    tag = element(b"\x73\x73", element(b"\x63\xc0"), _simple(b"PROMPT", SALTED), _simple(b"A", "b"))
    alone = element(b"\x73\x73", element(b"\x63\xc0"), _simple(b"WORKFLOW", '"' + "x" * 200 + '"'))
    tags = element(b"\x12\x54\xc3\x67", element(b"\xec", b"x"), tag, alone)
    data = EBML + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + tags
    assert texts_of(own(data))["prompt"] == FILLED
    made = stripped(data)
    assert texts_of(made) == {"a": b"b"}
    assert len(made) == len(data)
    stream = data + b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7  # a cluster that says no length
    assert not is_understood(stream)
    assert texts_before_the_cluster(stream)


def texts_before_the_cluster(data: bytes) -> bool:
    return b"comfygate" not in own(data)


@pytest.mark.parametrize(
    "rest",
    [b"\x01abcdefgh", b"\x12\x54\xc3\x67", b"\x12\x54\xc3\x67\x00", b"\x12\x54\xc3\x67\x01\0\0", b"\x12\x54\xc3\x67\x83\x73\x73\x85"],
)  # fmt: skip
def test_elements_that_lie_are_not_understood(rest: bytes) -> None:
    assert not is_understood(EBML + rest)


def _comments(*texts: str) -> bytes:
    listed = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    return struct.pack("<I", 3) + b"xyz" + struct.pack("<I", len(texts)) + listed


def test_flac_whose_comments_are_its_last_block() -> None:
    data = _comments(f"prompt={SALTED}", "title=x", "nothing")
    block = b"fLaC" + bytes([0x84]) + len(data).to_bytes(3, "big") + data
    assert texts_of(own(block)) == {"prompt": FILLED, "title": b"x"}
    made = stripped(block)
    assert texts_of(made) == {"title": b"x"}
    assert len(made) == len(block)
    assert is_understood(block + b"sound")


@pytest.mark.parametrize(
    "data",
    [b"", struct.pack("<I", 9), struct.pack("<II", 0, 5000), struct.pack("<III", 0, 1, 9), struct.pack("<II", 0, 1)],
)
def test_comments_that_lie_are_not_understood(data: bytes) -> None:
    assert not is_understood(b"fLaC" + bytes([0x84]) + len(data).to_bytes(3, "big") + data)


def _page(body: bytes, *, is_whole: bool = True) -> bytes:
    lacing = b"\xff" * (len(body) // 255) + (bytes([len(body) % 255]) if is_whole else b"")
    return b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + body


def test_comments_over_many_pages() -> None:
    packet = b"OpusTags" + _comments(f"prompt={SALTED}", "title=" + "x" * 1000)
    first, rest = packet[: 255 * 2], packet[255 * 2 :]
    data = _page(b"OpusHead") + _page(first, is_whole=False) + _page(rest) + _page(b"sound")
    assert own(data) != data
    assert texts_of(own(data))["prompt"] == FILLED
    assert texts_of(stripped(data)) == {"title": b"x" * 1000}


def test_ogg_vorbis_gets_its_own_workflow_but_none_goes() -> None:
    data = _page(b"\1vorbis") + _page(b"\3vorbis" + _comments(f"prompt={SALTED}") + b"\1")
    assert b"comfygate" not in own(data)
    media = without_workflow(len(data))
    assert not read_from(data, media)
    assert not media.is_understood


def test_ogg_of_another_kind_or_without_end_is_not_understood() -> None:
    assert not is_understood(_page(b"fishead") + _page(b"something"))
    assert not is_understood(_page(b"OpusHead") + b"OggS" + bytes(23))
    endless = _page(b"x" * 255 * 255, is_whole=False)
    assert not is_understood(_page(b"OpusHead") + endless * 260)
    cut = _page(b"OpusHead") + _page(b"OpusTags" + _comments("a=b"))
    assert not is_understood(cut[:-3])


@pytest.mark.parametrize("version", [3, 4])
def test_both_versions_of_id3(version: int) -> None:
    def frame(kind: bytes, data: bytes) -> bytes:
        size = len(data) if version == 3 else (len(data) >> 7 << 8 | len(data) & 0x7F)
        return kind + struct.pack(">I", size) + bytes(2) + data

    frames = (
        frame(b"TXXX", b"\3prompt\0" + SALTED.encode() + b"\0") + frame(b"TXXX", b"\1\xff\xfe") + frame(b"TXXX", b"\3none")
        + frame(b"TIT2", b"\3title") + bytes(20)
    )  # fmt: skip
    data = b"ID3" + bytes([version, 0, 0, 0, 0]) + struct.pack(">BB", len(frames) >> 7, len(frames) & 0x7F) + frames
    assert texts_of(own(data)) == {"prompt": FILLED}
    made = stripped(data)
    assert texts_of(made) == {}
    assert b"title" in made
    assert len(made) == len(data)
    assert not is_understood(data[:5] + b"\x80" + data[6:])
    assert not is_understood(data[:14] + b"\x7f" + data[15:])


def test_safetensors_and_glb_that_lie_are_not_understood() -> None:
    assert not is_understood(struct.pack("<Q", 9) + b'{"a": 1]}')
    assert not is_understood(b"glTF" + bytes(8) + struct.pack("<I", 4) + b"BIN\0" + bytes(4))
    assert not is_understood(b"glTF" + bytes(8) + struct.pack("<I", 99) + b"JSON" + bytes(4))
    assert is_understood(struct.pack("<Q", 8) + b'{"a": 1}')
    assert is_understood(struct.pack("<Q", 23) + b'{"__metadata__": "none"}'[:23] + b"}"[:0]) is False
    # A judge may not make a head longer.
    head = json.dumps({"__metadata__": {"a": "xx"}}, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(head)) + head
    assert judged(lambda key, text: b'""', data) == (data, False)


def test_svg_and_exr_that_are_cut() -> None:
    start = b"<svg><metadata><![CDATA[" + SALTED.encode()
    assert own(start) == start
    assert own(start + b"]]></metadata><metadata><![CDATA[{}]]>") == start.replace(SALTED.encode(), FILLED) + (
        b"]]></metadata><metadata><![CDATA[{}]]>"
    )
    assert not is_understood(b"\x76\x2f\x31\x01" + bytes(4) + b"name\0type")


def test_what_has_no_reader_stays_and_is_not_understood() -> None:
    data = b"GIF89a" + SALTED.encode()
    assert own(data) == stripped(data) == data
    assert not is_understood(data)
    assert own(b"") == b""


def test_a_large_text_is_work_of_its_own() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", SALTED.replace("tenants/alice/x", "tenants/alice/" + "x" * 2 * WORK_BYTES))
    data = picture("PNG", pnginfo=info)
    stream = EditedStream(own_workflow(len(data), ALICE))
    made = bytes(stream.feed(data))
    assert stream.work_bytes > 2 * WORK_BYTES
    assert stream.wanted_bytes >= stream.work_bytes
    assert len(made) < 100
    made += stream.work()
    assert not stream.work_bytes
    assert not stream.wanted_bytes
    assert made + stream.end() == own(data)
    assert b"comfygate" not in made


def test_a_piece_of_a_file_has_its_part_of_an_edit() -> None:
    data = REAL["saved.png"]
    edits = read_from(data, own_workflow(len(data), ALICE))
    for start, size in ((0, 60), (50, 500), (300, len(data)), (len(data) - 5, 5), (0, 0)):
        assert apply(data[start : start + size], edits, start) == own(data)[start : start + size]

"""A tenant may have uploaded whatever it likes to its output folder: what is read of it by the gate takes little time and memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import overload

import pytest

from policy.media.editing import MAX_PARTS, MAX_SPAN_BYTES, Edit, apply
from policy.media.formats import own_workflow, without_workflow
from policy.media.workflow_texts import MAX_OWN_BYTES, own_texts
from policy.media.workflow_texts import MAX_PARTS as MAX_TEXT_PARTS
from tests.policy.media.files import (
    ALICE,
    FILLED,
    REAL,
    SALTED,
    box,
    chunk,
    element,
    is_understood,
    own,
    picture,
    read_from,
)

SALT = b'"comfygate_tenant"'


def directories(count: int) -> bytes:
    """Exif whose first directory has so many entries, each of which leads to the same one of as many."""
    second = 8 + 2 + count * 12 + 4
    entry = struct.pack("<HHII", 0x8769, 4, 1, second)
    first = struct.pack("<H", count) + entry * count + bytes(4)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + struct.pack("<H", count) + bytes(12 * count + 4)


def jpeg_with(exif: bytes) -> bytes:
    return b"\xff\xd8\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + b"\xff\xd9\0\0"


def png_with(*texts: bytes) -> bytes:
    whole = picture("PNG")
    return whole[:33] + b"".join(chunk(b"tEXt", b"prompt\0" + text) for text in texts) + whole[33:]


def film(*, tags: bytes) -> bytes:
    return b"\x1a\x45\xdf\xa3\x80" + element(b"\x12\x54\xc3\x67", tags)


def mp4(*, meta: bytes) -> bytes:
    return box(b"ftyp", b"isom") + box(b"meta", bytes(4) + meta)


def test_a_directory_that_many_entries_name_is_not_read_for_each() -> None:
    assert is_understood(jpeg_with(directories(1)))
    # 64 KB of it took six seconds, and a WebP has room for six hundred times as much work.
    assert not is_understood(jpeg_with(directories(2700)))


@pytest.mark.parametrize("count", [10, MAX_PARTS + 1])
def test_elements_and_boxes_are_so_many(count: int) -> None:
    for data in (film(tags=b"\xec\x80" * count), mp4(meta=box(b"free", b"") * count)):
        assert is_understood(data) == (count == 10)


def test_the_parts_of_a_text_are_so_many() -> None:
    def text(count: int) -> bytes:
        return f'{{"1": {{"class_type": "A", "inputs": {{"comfygate_tenant": [{"0," * count}0]}}}}}}'.encode()

    assert own_texts(ALICE)("prompt", text(MAX_TEXT_PARTS - 10)) is not None
    assert own_texts(ALICE)("prompt", text(MAX_TEXT_PARTS)) is None
    assert own_texts(ALICE)("prompt", text(10).replace(b"0,", b"[{}]," * MAX_TEXT_PARTS)) is None


def test_a_file_has_so_much_that_is_changed_and_the_rest_stays() -> None:
    size = MAX_OWN_BYTES // 8
    long = SALTED.replace("alice/x", "alice/" + "x" * size).encode()
    data = png_with(*[long] * 10)
    edits = read_from(data, own_workflow(len(data), ALICE))
    assert len(edits) == 7
    assert own(data).count(SALT) == 3
    assert sum(len(edit.replacement) for edit in edits) <= MAX_OWN_BYTES
    # One that alone is more is passed over, and does not keep the next one from being read.
    data = png_with(SALTED.replace("alice/x", "alice/" + "x" * MAX_OWN_BYTES).encode(), SALTED.encode())
    assert own(data).count(SALT) == 1
    assert FILLED in own(data)


def test_room_that_stands_around_texts_counts_too() -> None:
    text = b"prompt:" + SALTED.encode() + b"\0"
    entry = struct.pack("<HHII", 0x010F, 2, len(text), 26)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + text
    segment = jpeg_with(exif.ljust(60_000, b"\0"))[2:-4]
    data = b"\xff\xd8" + segment * 100 + b"\xff\xd9\0\0"
    edits = read_from(data, own_workflow(len(data), ALICE))
    assert len(edits) == MAX_OWN_BYTES // len(segment)


@pytest.mark.parametrize("kind", ["png", "mp4", "mkv"])
def test_what_is_too_large_to_be_looked_at_is_not_said_to_be_gone(kind: str) -> None:
    """Else a caller, by a long argument, gets the workflow of a function that gives its outputs without."""
    large = bytes(MAX_SPAN_BYTES)
    files = {"png": png_with(large), "mp4": mp4(meta=box(b"free", large)), "mkv": film(tags=element(b"\xec", large))}
    data = files[kind]
    media = without_workflow(len(data))
    assert read_from(data, media) == []
    assert not media.is_understood
    assert is_understood(data), "whose workflow stays as the gate has written it"


def test_a_piece_of_a_file_costs_what_is_changed_in_it() -> None:
    class Counting(Sequence[Edit]):
        def __init__(self) -> None:
            self.looked = 0

        @overload
        def __getitem__(self, place: int) -> Edit: ...
        @overload
        def __getitem__(self, place: slice) -> Sequence[Edit]: ...
        def __getitem__(self, place: int | slice) -> Edit | Sequence[Edit]:
            assert isinstance(place, int)
            self.looked += 1
            return Edit(place * 100, 10, b"y" * 10)

        def __len__(self) -> int:
            return MAX_PARTS

        def __iter__(self) -> Iterator[Edit]:
            raise AssertionError("not all of them")

    edits = Counting()
    assert apply(b"x" * 300, edits, 1_000_005) == b"yyyyy" + (b"x" * 90 + b"y" * 10) * 2 + b"x" * 90 + b"y" * 5
    assert edits.looked < 30


def test_the_files_of_a_real_comfyui_are_far_below() -> None:
    assert all(len(data) < MAX_OWN_BYTES for data in REAL.values())

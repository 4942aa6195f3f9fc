"""What is left of a file is searched as it is: what has no workflow anywhere is given as it came, and words are found wherever they stand."""

from __future__ import annotations

import base64

import pytest

from tests.policy.media.files import box, stripping
from tests.policy.media.test_places import (
    PACKET,
    PLAIN_OPUS,
    XMP_UUID,
    comments,
    cover,
    film,
    flac,
    glb,
    png,
    text,
)


@pytest.mark.parametrize("data", [b'<?xml version="1.0"?><kml/>', b"<!-- svg --><html></html>", b"<!--"])
def test_what_begins_as_an_svg_and_is_none_is_refused(data: bytes) -> None:
    assert not stripping(data)[1]


@pytest.mark.parametrize(
    "data",
    [
        b'<x:svg xmlns:x="http://www.w3.org/2000/svg"/>',
        b'<svg><image href="data:image/png;base64,' + base64.b64encode(png(text(b"Title", b"a cat"))) + b'"/></svg>',
        glb(images=[{"uri": "data:image/png;base64,=%=="}]),
        flac(4, comments(b"METADATA_BLOCK_PICTURE=" + cover(b"{") + b"=")),
        PLAIN_OPUS,
        film() + box(b"mdat", b"a cat"),
    ],
)
def test_what_has_none_stays_as_it_is(data: bytes) -> None:
    assert stripping(data) == (data, True)


@pytest.mark.parametrize("before", [2**20 - 40 - each for each in range(0, 16, 3)])
def test_a_word_is_found_wherever_a_piece_begins(before: int) -> None:
    """A file is searched in pieces of a MiB."""
    start = film()
    for told in (b"class_type", "class_type".encode("utf-16-le")):
        data = start + box(b"mdat", bytes([1]) * (before - len(start)), told, bytes([1]) * 100)
        assert not stripping(data)[1]
        edited = film(top=box(b"uuid", XMP_UUID, PACKET)) + box(b"mdat", bytes([1]) * before, told, bytes([1]) * 100)
        assert not stripping(edited)[1]


@pytest.mark.parametrize("is_spelled", ["plainly", "in lines", "as an address"])
@pytest.mark.parametrize("size", [10, 101, 2**20])
@pytest.mark.parametrize("lead", [2**20 - 100, 2**20 - 63])
def test_a_picture_of_an_address_is_found_wherever_a_piece_begins(lead: int, size: int, is_spelled: str) -> None:
    start = film()
    for words in (b"class_type", b"a nice cat"):
        told = base64.b64encode(b"\xff" * size + words + b"\xff" * 9)
        if is_spelled == "in lines":
            told = b"&#10;".join(told[at : at + 7] for at in range(0, len(told), 7))
        elif is_spelled == "as an address":
            told = b"".join(b"%%%02X" % each for each in told)
        address = b'"data:image/png;base64,' + told + b'"'
        data = start + box(b"mdat", b"\1" * (lead - len(start)), address, b"\1" * 100)
        assert stripping(data)[1] is (words == b"a nice cat")


@pytest.mark.parametrize("size", range(3))
def test_a_picture_of_an_address_is_found_behind_another(size: int) -> None:
    before, told = base64.b64encode(bytes(30 + size)), base64.b64encode(b"class_type" + bytes([7]) * 5)
    pictures = b"data:image/png;base64," + before + b" 1x, data:image/png;base64," + told + b" 2x"
    assert not stripping(b'<svg><image srcset="' + pictures + b'"/></svg>')[1]

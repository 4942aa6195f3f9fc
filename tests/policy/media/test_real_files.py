"""What a real ComfyUI wrote: a tenant gets its own workflow, or none, and the same picture, film or sound."""

from __future__ import annotations

import io
import json
import re
import zlib

import pytest
from PIL import Image, ImageSequence

from policy.media.editing import size_after
from policy.media.formats import own_workflow, without_workflow
from policy.media.streaming import EditedStream
from tests.policy.media.files import ALICE, REAL, SENT, own, own_prompt, read_from, stripped, texts_of, workflows_of

every_file = pytest.mark.parametrize("name", REAL)
PICTURES = [name for name in REAL if name.endswith((".png", ".webp"))]


@every_file
def test_the_workflow_is_the_tenants_own(name: str) -> None:
    data = REAL[name]
    assert workflows_of(data) == {"prompt": SENT["prompt"], "workflow": SENT["workflow"]}
    made = own(data)
    assert workflows_of(made) == {"prompt": own_prompt(SENT["prompt"]), "workflow": SENT["workflow"]}
    assert b"comfygate" not in made
    assert made.count(b"tenants/alice/") == data.count(SENT["workflow"]["note"].encode("ascii", "ignore")[-15:])


@every_file
def test_all_other_bytes_stay_where_they_are(name: str) -> None:
    data = REAL[name]
    edits = read_from(data, own_workflow(len(data), ALICE))
    made = own(data)
    assert len(made) == len(data)
    place = 0
    for edit in edits:
        assert made[place : edit.offset] == data[place : edit.offset]
        place = edit.offset + edit.length
    assert made[place:] == data[place:]
    assert own(made) == made
    assert not read_from(made, own_workflow(len(made), ALICE))


@every_file
def test_a_workflow_that_goes_leaves_the_rest(name: str) -> None:
    data = REAL[name]
    media = without_workflow(len(data))
    edits = read_from(data, media)
    assert media.is_understood
    made = stripped(data)
    assert len(made) == size_after(len(data), edits)
    assert b"class_type" not in made
    assert b"widgets_values" not in made
    assert {key for key, text in texts_of(made).items() if text.strip()} == set(texts_of(data)) - {
        "prompt", "workflow", "",
    }  # fmt: skip
    assert stripped(made) == made


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("change", [own, stripped])
def test_pictures_open_and_are_the_same(name: str, change: object) -> None:
    assert callable(change)
    before, after = Image.open(io.BytesIO(REAL[name])), Image.open(io.BytesIO(change(REAL[name])))
    pixels = [[frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(each)] for each in (before, after)]
    assert pixels[0] == pixels[1]


@pytest.mark.parametrize(
    "name", ["film.mp4", "film.mkv", "film.webm", "sound.flac", "sound.mp3", "sound.opus", "saved.exr"]
)
def test_films_and_sounds_keep_their_length_without_a_workflow(name: str) -> None:
    """Other parts of the file say where parts of it are."""
    assert len(stripped(REAL[name])) == len(REAL[name])


@pytest.mark.parametrize("change", [own, stripped])
def test_pages_of_ogg_have_the_right_sums(change: object) -> None:
    assert callable(change)
    data, place, pages = change(REAL["sound.opus"]), 0, 0
    while place < len(data):
        lacing = data[place + 27 : place + 27 + data[place + 26]]
        page = data[place : place + 27 + len(lacing) + sum(lacing)]
        told = int.from_bytes(page[22:26], "little")
        assert told == slow_checksum(page[:22] + bytes(4) + page[26:])
        place, pages = place + len(page), pages + 1
    assert pages >= 3


def slow_checksum(page: bytes) -> int:
    """RFC 3533, 6, as it is written there."""
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ (0x04C11DB7 if found & 0x80000000 else 0)) & 0xFFFFFFFF
    return found


@pytest.mark.parametrize("change", [own, stripped])
def test_the_tags_of_matroska_have_the_right_sum(change: object) -> None:
    assert callable(change)
    data = change(REAL["film.mkv"])
    start = data.rindex(b"\x12\x54\xc3\x67")  # the first one says where it is
    head = 4 + 9 - data[start + 4].bit_length()
    size = int.from_bytes(data[start + 4 : start + head], "big") & ((1 << 7 * (head - 4)) - 1)
    body = data[start + head : start + head + size]
    assert body[:2] == b"\xbf\x84"
    assert int.from_bytes(body[2:6], "little") == zlib.crc32(body[6:])


@every_file
@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_a_file_that_comes_in_pieces_becomes_the_same(name: str, size: int) -> None:
    data = REAL[name]
    stream = EditedStream(own_workflow(len(data), ALICE))
    made = b""
    for place in range(0, len(data), size):
        made += stream.feed(data[place : place + size])
        assert len(made) <= place + size
        assert not stream.work_bytes
    assert made + stream.end() == own(data)


def test_the_web_ui_finds_the_text_of_an_mp3() -> None:
    """It looks for the brace and the zero byte behind it (getMp3Metadata of the published web UI)."""
    found = re.search(rb"prompt\0(\{.*?\})\0", own(REAL["sound.mp3"]), re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == own_prompt(SENT["prompt"])

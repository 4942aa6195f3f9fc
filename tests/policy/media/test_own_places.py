"""Places of a workflow in which it is given in the tenant's own words, or left as it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from PIL import Image, PngImagePlugin

from policy.media.editing import Editing, NotUnderstood
from policy.media.workflow_texts import own_texts
from tests.policy.media.files import ALICE, SALTED, box, chunk, is_understood, own, picture, stripping
from tests.policy.media.test_places import avif, exif, film, heif, items, jpeg, png, segment, user_data, webp


def _salted_exif() -> bytes:
    return exif({0x0110: f"prompt:{SALTED}"})


def test_exif_of_a_png_is_in_the_tenants_own_words() -> None:
    for data in (png(chunk(b"eXIf", _salted_exif()[6:])), png(chunk(b"eXIf", _salted_exif()))):
        made = own(data)
        assert len(made) == len(data)
        assert b"comfygate" not in made
        assert b"tenants/" not in made
        opened = Image.open(io.BytesIO(made))
        opened.verify()  # the checksums too
        assert json.loads(opened.getexif()[0x0110].removeprefix("prompt:"))["1"]["inputs"] == {"filename_prefix": "x"}


def test_what_is_damaged_in_a_png_keeps_no_other_text_from_being_the_tenants() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", SALTED)
    whole = picture("PNG", pnginfo=info)
    data = whole[:33] + chunk(b"eXIf", b"nothing") + whole[33:]
    assert b"comfygate" not in own(data)
    assert is_understood(data)
    assert not stripping(data)[1]


@pytest.mark.parametrize("make", [lambda: avif(exif=_salted_exif()), lambda: heif(b"heic", items()) + SALTED.encode()])
def test_pictures_in_the_boxes_of_films_stay_as_they_are_for_their_tenant(make: Callable[[], bytes]) -> None:
    """docs/tenants.md: of other formats, what stands on ComfyUI's disk is given as it is."""
    data = make()
    assert own(data) == data


def test_user_data_of_a_mov_is_in_the_tenants_own_words() -> None:
    data = film(box(b"udta", user_data(b"\xa9cmt", json.dumps({"prompt": SALTED}).encode())))
    made = own(data)
    assert len(made) == len(data)
    assert b"comfygate" not in made
    assert b"tenants/" not in made


NO_ENTRIES = Image.Exif().tobytes()


@pytest.mark.parametrize(
    "data",
    [png(chunk(b"eXIf", NO_ENTRIES[6:])), jpeg(segment(0xE1, NO_ENTRIES)), webp((b"EXIF", NO_ENTRIES))],
    ids=["png", "jpeg", "webp"],
)
def test_exif_without_an_entry_stays_as_it_is(data: bytes) -> None:
    """As ComfyUI writes it with --disable-metadata: it has lost nothing, and the length of the file was told by then."""
    assert own(data) == data
    assert stripping(data) == (data, True)


def test_a_file_that_keeps_its_length_has_no_other() -> None:
    editing = Editing(own_texts(ALICE), 2, max_bytes=10)
    editing.replace(0, b"a", b"b")
    with pytest.raises(NotUnderstood):
        editing.replace(1, b"a", b"")
    assert len(editing.edits) == 1

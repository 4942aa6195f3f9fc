"""Files without the workflow in them: each kind that ComfyUI writes it into, as a real one wrote it (tests/data/media)."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from proxy.conversion.worker import convert
from tests.proxy.conversion.orders import CANARY, order, saved, shades

MEDIA = Path(__file__).parents[2] / "data" / "media"
FILES = sorted(path.name for path in MEDIA.iterdir() if path.suffix != ".json")
PICTURES = [name for name in FILES if name.endswith((".png", ".webp"))]
OF_THE_WORKFLOW = (b"class_type", b"comfygate_tenant", b"EmptyImage")


def stripped(source: Path) -> bytes:
    asked = order(source, "", max_bytes=10**7)
    answer = convert(asked)
    assert (answer.refused, answer.failed, answer.is_gone) == ("", "", False)
    data = Path(asked.target).read_bytes()
    assert answer.size_bytes == len(data)
    return data


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file(tmp_path: Path, name: str) -> None:
    source = Path(shutil.copy(MEDIA / name, tmp_path))
    before, after = source.read_bytes(), stripped(source)
    assert any(word in before for word in OF_THE_WORKFLOW) or name.endswith(".exr")
    assert not [word for word in OF_THE_WORKFLOW if word in after]
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_the_same_frame_by_frame(tmp_path: Path, name: str) -> None:
    source = Path(shutil.copy(MEDIA / name, tmp_path))
    with Image.open(io.BytesIO(stripped(source))) as after, Image.open(io.BytesIO(source.read_bytes())) as before:
        frames = getattr(before, "n_frames", 1)
        assert getattr(after, "n_frames", 1) == frames
        for place in range(frames):
            after.seek(place)
            before.seek(place)
            assert after.tobytes() == before.tobytes()


def test_it_needs_no_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proxy.conversion.pictures", None)
    assert CANARY.encode() not in stripped(saved(shades(), tmp_path / "a.png"))


def test_exif_of_a_png_goes_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{CANARY}"
    source = tmp_path / "a.png"
    shades().save(source, exif=exif)
    assert CANARY.encode() in source.read_bytes()
    made = stripped(source)
    assert CANARY.encode() not in made
    assert Image.open(io.BytesIO(made)).tobytes() == shades().tobytes()


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.txt", "a.avif"])
def test_what_is_of_no_known_kind_is_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name == "a.txt":
        source.write_text("words")
    elif name == "a.avif":
        saved(shades(), source)
    else:
        shades().save(source)
    assert convert(order(source, "")).refused.startswith("It is no file of a kind whose workflow can be taken out")


@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_is_refused_or_has_none(tmp_path: Path, name: str) -> None:
    """Cut off anywhere, it is not said to have lost what it may still have."""
    whole = (MEDIA / name).read_bytes()
    for number, count in enumerate(range(1, len(whole), max(1, len(whole) // 40))):
        source = tmp_path / f"{number}-{name}"
        source.write_bytes(whole[:count])
        asked = order(source, "", max_bytes=10**7)
        answer = convert(asked)
        assert answer.failed == ""
        if not answer.refused:
            assert b"comfygate_tenant" not in Path(asked.target).read_bytes()


def test_one_that_is_too_large_is_refused(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.png")
    assert convert(order(source, "", max_bytes=100)).refused == "It would have more than 100 bytes."

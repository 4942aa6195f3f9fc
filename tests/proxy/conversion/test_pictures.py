"""What becomes of a picture: its kind and its looks, what stays of what it says of itself, and what is refused in words."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from PIL import Image, ImageChops, ImageCms, ImageStat

from proxy.conversion.order import Answer
from proxy.conversion.worker import convert
from tests.proxy.conversion.orders import CANARY, SIZE, SRGB, frames, order, saved, shades

KINDS = ("png", "jpeg", "webp", "avif")
LINEAR = b"\x00" * 16 + b"GRAY" + b"\x00" * 108


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """Those of the process that converts are not those of others."""
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


def opened(answer: Answer, asked: Any) -> Image.Image:
    assert (answer.refused, answer.failed, answer.is_gone) == ("", "", False)
    data = Path(asked.target).read_bytes()
    assert (answer.size_bytes, answer.hash) == (len(data), f"blake3:{blake3(data).hexdigest()}")
    assert CANARY.encode() not in data
    return Image.open(io.BytesIO(data))


def shown(source: Path) -> Image.Image:
    return Image.open(io.BytesIO(source.read_bytes()))


def converted(source: Path, kind: str, **more: Any) -> Image.Image:
    asked = order(source, kind, **more)
    return opened(convert(asked), asked)


def refused(source: Path, kind: str, **more: Any) -> str:
    answer = convert(order(source, kind, **more))
    assert (answer.hash, answer.failed) == ("", "")
    return answer.refused


def looks_like(picture: Image.Image, other: Image.Image, by: float = 6.0) -> bool:
    """On average, of 255."""
    difference = ImageChops.difference(picture.convert("RGBA"), other.convert("RGBA"))
    return max(ImageStat.Stat(difference).mean) < by


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif", "a.bmp", "a.gif"])
def test_every_kind_as_every_other(tmp_path: Path, name: str, kind: str) -> None:
    source = tmp_path / name
    if name in ("a.bmp", "a.gif"):
        shades().save(source)
    else:
        saved(shades(), source)
    found = converted(source, kind)
    assert (found.format, found.size) == (kind.upper(), SIZE)
    assert looks_like(found, shown(source))
    assert not found.getexif()
    assert {"comment", "xmp", "exif", "prompt"}.isdisjoint(found.info)


def test_a_lower_quality_is_a_smaller_file(tmp_path: Path) -> None:
    source = saved(Image.effect_noise((128, 128), 50).convert("RGB"), tmp_path / "a.png")
    for kind in ("jpeg", "webp", "avif"):
        sizes = []
        for quality in (10, 90):
            asked = order(source, kind)._replace(quality=quality, target=str(tmp_path / f"{kind}-{quality}"))
            sizes.append(convert(asked).size_bytes)
        assert 0 < sizes[0] < sizes[1]


def test_the_same_picture_is_the_same_file_each_time(tmp_path: Path) -> None:
    source = saved(shades("RGBA"), tmp_path / "a.png")
    for kind in KINDS:
        first, second = (convert(order(source, kind)._replace(target=str(tmp_path / f"{kind}{n}"))) for n in (1, 2))
        assert first == second


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif"])
def test_the_color_profile_stays(tmp_path: Path, name: str, kind: str) -> None:
    source = saved(shades(), tmp_path / name, icc_profile=SRGB)
    assert converted(source, kind).info["icc_profile"] == SRGB


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif"])
def test_a_picture_that_is_turned_looks_the_same(tmp_path: Path, name: str, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # shown with a quarter turn to the right
    source = saved(shades(), tmp_path / name, exif=exif)
    found = converted(source, kind)
    assert found.getexif().get(274, 1) == 1
    assert found.size == (SIZE[1], SIZE[0])
    assert looks_like(found, shades().transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L", "PA"])
@pytest.mark.parametrize("kind", KINDS)
def test_transparency_stays_and_is_white_in_a_jpeg(tmp_path: Path, mode: str, kind: str) -> None:
    picture = shades("RGBA").convert("P") if mode in ("P", "PA") else shades(mode)
    options = {"transparency": 3} if mode == "P" else {}
    source = saved(picture, tmp_path / "a.png", **options)
    found, before = converted(source, kind), shown(source).convert("RGBA")
    if kind == "jpeg":
        assert found.mode in ("L", "RGB")
        before = Image.alpha_composite(Image.new("RGBA", SIZE, "white"), before)
        assert looks_like(found, before, 9)
    else:
        assert looks_like(found, before, 9)
        assert found.has_transparency_data == shown(source).has_transparency_data


def test_gray_stays_gray_where_there_is_gray(tmp_path: Path) -> None:
    source = saved(shades("L"), tmp_path / "a.png", icc_profile=LINEAR)
    assert converted(source, "png").mode == converted(source, "jpeg").mode == "L"
    assert converted(source, "png").info["icc_profile"] == LINEAR
    assert "not of the colors that it would have as webp" in refused(source, "webp")


def test_sixteen_bits_are_kept_in_a_png_and_rounded_elsewhere(tmp_path: Path) -> None:
    deep = Image.new("I;16", SIZE, 0x8000)
    source = saved(deep, tmp_path / "a.png")
    assert converted(source, "png").getpixel((0, 0)) == 0x8000
    for kind in ("jpeg", "webp", "avif"):
        assert converted(source, kind).convert("L").getpixel((0, 0)) in range(124, 132)


@pytest.mark.parametrize("kind", ["png", "webp", "avif"])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif", "a.avif"])
def test_frames_and_their_times_stay(tmp_path: Path, name: str, kind: str) -> None:
    first, *rest = frames()
    times = [100, 200, 300, 400]
    source = saved(first, tmp_path / name, save_all=True, append_images=rest, duration=times, loop=2)
    found = converted(source, kind)
    assert getattr(found, "n_frames", 1) == 4
    for place, picture in enumerate(frames()):
        found.seek(place)
        found.load()
        assert found.info["duration"] == times[place]
        assert looks_like(found, picture, 12)
    if kind != "avif" and name != "a.avif":
        # A GIF says how often it is shown again, the others how often it is shown.
        assert found.info["loop"] == (3 if name == "a.gif" else 2)


def times_of(picture: Image.Image) -> list[int]:
    found = []
    for place in range(getattr(picture, "n_frames", 1)):
        picture.seek(place)
        picture.load()
        found.append(picture.info["duration"])
    return found


@pytest.mark.parametrize("name", ["a.avif", "a.png"])
@pytest.mark.parametrize("pattern", ["AABBA", "ABBBAA", "AAAA"])
@pytest.mark.parametrize("kind", ["png", "webp", "avif"])
def test_equal_frames_keep_their_times(tmp_path: Path, kind: str, pattern: str, name: str) -> None:
    looks = dict(zip("AB", frames(2), strict=True))
    first, *rest = (looks[letter] for letter in pattern)
    times = [100 + 10 * place for place in range(len(pattern))]
    source = tmp_path / name
    # Pillow makes one frame of those of a PNG that are taken away in the same way.
    options: dict[str, Any] = {"disposal": [place % 2 for place in range(len(pattern))]} if name == "a.png" else {}
    first.save(source, save_all=True, append_images=rest, duration=times, loop=2, **options)
    assert times_of(shown(source)) == times
    found = converted(source, kind)
    assert sum(times_of(found)) == sum(times)
    if kind != "webp":
        assert times_of(found) == times
    moment = 0
    for place, duration in enumerate(times_of(found)):
        found.seek(place)
        assert looks_like(found, looks[_letter_at(pattern, times, moment)], 12)
        moment += duration


def _letter_at(pattern: str, times: list[int], moment: int) -> str:
    for letter, duration in zip(pattern, times, strict=True):
        if moment < duration:
            return letter
        moment -= duration
    raise AssertionError("later than the last frame")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"icc_profile": SRGB}])
def test_a_webp_of_one_frame_that_lasts(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    picture = shades(mode)
    source = saved(picture, tmp_path / "a.avif", save_all=True, append_images=[picture] * 3, duration=250, **options)
    asked = order(source, "webp")
    found = opened(convert(asked), asked)
    data = Path(asked.target).read_bytes()
    assert b"ANMF" in data
    assert len(data) == 8 + int.from_bytes(data[4:8], "little")
    assert times_of(found) == [1000]
    assert looks_like(found, picture, 12)
    assert found.mode == mode
    assert found.info.get("icc_profile") == options.get("icc_profile")
    again = tmp_path / "again.webp"
    again.write_bytes(data)
    assert looks_like(converted(again, "png"), picture, 12)


def test_frames_that_are_alike_for_a_lossy_webp_keep_their_time(tmp_path: Path) -> None:
    first, other = shades(), shades()
    other.putpixel((5, 5), tuple(level + 1 for level in other.getpixel((5, 5))))  # type: ignore[union-attr]
    source = tmp_path / "a.png"
    first.save(source, save_all=True, append_images=[other], duration=300)
    assert sum(times_of(converted(source, "webp"))) == 600


def test_equal_frames_for_longer_than_one_of_a_webp_lasts(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.avif", save_all=True, append_images=[shades()], duration=2**23)
    assert sum(times_of(converted(source, "webp"))) == 2**24


def test_frames_that_lie_over_others_look_the_same(tmp_path: Path) -> None:
    first, *rest = (frame.convert("RGBA") for frame in frames())
    for frame in (first, *rest):
        frame.putalpha(100)
    source = tmp_path / "a.png"
    first.save(source, save_all=True, append_images=rest, duration=100, blend=1, disposal=1)
    before, after = shown(source), converted(source, "png")
    for place in range(4):
        before.seek(place)
        after.seek(place)
        assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()


def test_a_gif_that_is_shown_once_or_for_ever(tmp_path: Path) -> None:
    first, *rest = frames(2)
    for options, loops in (({}, 1), ({"loop": 0}, 0)):
        source = saved(first, tmp_path / "a.gif", save_all=True, append_images=rest, duration=100, **options)
        asked = order(source, "webp")._replace(target=str(tmp_path / f"{loops}.webp"))
        assert opened(convert(asked), asked).info["loop"] == loops


def test_what_a_jpeg_has_besides_its_picture_goes(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.jpg", comment=CANARY)
    assert "comment" not in converted(source, "jpeg").info
    # As phones make them: the second picture is a preview.
    several = tmp_path / "b.jpg"
    shades().save(several, "MPO", save_all=True, append_images=[shades().rotate(90)])
    assert getattr(converted(several, "webp"), "n_frames", 1) == 1


# What is refused.


def test_an_animated_picture_is_no_jpeg(tmp_path: Path) -> None:
    first, *rest = frames()
    source = saved(first, tmp_path / "a.webp", save_all=True, append_images=rest)
    assert refused(source, "jpeg") == "It has 4 frames, and a JPEG has one: convert it to webp, avif or png."


def test_an_animated_picture_that_is_turned_or_has_a_still_one(tmp_path: Path) -> None:
    first, *rest = frames()
    still = saved(first, tmp_path / "a.png", save_all=True, append_images=rest, default_image=True)
    assert "have a still one besides" in refused(still, "webp")
    exif = Image.Exif()
    exif[274] = 3
    turned = saved(first, tmp_path / "a.webp", save_all=True, append_images=rest, exif=exif)
    assert "are turned" in refused(turned, "avif")


@pytest.mark.parametrize("more", [{"max_pixels": SIZE[0] * SIZE[1] - 1}, {"max_pixels": 1}])
def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path, more: Any, monkeypatch: Any) -> None:
    source = saved(shades(), tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    assert "too many pixels" in refused(source, "webp", **more)


def test_the_pixels_of_all_frames_count(tmp_path: Path) -> None:
    first, *rest = frames()
    source = saved(first, tmp_path / "a.gif", save_all=True, append_images=rest)
    assert "of all frames together" in refused(source, "webp", max_pixels=SIZE[0] * SIZE[1] * 4 - 1)
    assert converted(source, "webp", max_pixels=SIZE[0] * SIZE[1] * 4).n_frames == 4  # type: ignore[attr-defined]


def test_a_picture_that_is_too_long_for_its_format(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.new("L", (20_000, 2)).save(source)
    assert "more than 16383 pixels on a side" in refused(source, "webp")
    assert converted(source, "avif").size == (20_000, 2)


def test_an_encoder_that_gives_up_is_short_of_memory(tmp_path: Path, monkeypatch: Any) -> None:
    source = saved(shades(), tmp_path / "a.png")
    for error in (ValueError("encoding error 1"), RuntimeError("failed"), OSError("encoder error -9")):

        def give_up(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(Image.Image, "save", give_up)
        assert refused(source, "webp") == "It needs more memory than a conversion may take."


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("F", "a.tiff"), ("I", "a.tiff")])
def test_colors_and_kinds_that_are_not_converted(tmp_path: Path, mode: str, name: str) -> None:
    source = tmp_path / name
    shades("CMYK" if mode == "CMYK" else "L").convert(mode).save(source)
    expected = "Pictures in such colors (CMYK)" if mode == "CMYK" else "It cannot be read as a picture."
    assert refused(source, "webp").startswith(expected)


def test_a_profile_of_other_colors(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.png", icc_profile=LINEAR)
    assert "color profile" in refused(source, "png")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert "color profile" in refused(saved(shades(), tmp_path / "b.png", icc_profile=lab), "jpeg")
    large = SRGB + b"\x00" * (4 * 1024**2)
    assert "too large" in refused(saved(shades(), tmp_path / "c.webp", icc_profile=large), "jpeg")


@pytest.mark.parametrize("keep", [0, 8, 30, 200, -1000])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.avif", "a.gif"])
def test_what_is_broken_is_no_picture(tmp_path: Path, name: str, keep: int) -> None:
    source = saved(Image.effect_noise((64, 64), 50).convert("RGB"), tmp_path / name)
    source.write_bytes(source.read_bytes()[:keep])
    assert convert(order(source, "webp")).refused == "It cannot be read as a picture."


def test_a_text_is_none_either(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert refused(source, "png") == "It cannot be read as a picture."


def test_a_file_that_is_gone_or_another_one(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.png")
    found = source.stat()
    stamp = f"{found.st_mtime_ns:x}-{found.st_size:x}"
    assert convert(order(source, "png", stamp=stamp)).hash
    assert convert(order(source, "webp", stamp=f"1-{found.st_size:x}")).is_gone
    assert convert(order(tmp_path / "none.png", "webp")).is_gone
    if hasattr(os, "O_NOFOLLOW"):
        link = tmp_path / "link.png"
        link.symlink_to(source)
        assert convert(order(link, "webp")).is_gone


def test_a_target_is_never_written_over(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.png")
    asked = order(source, "webp")
    Path(asked.target).write_bytes(b"mine")
    assert "File exists" in convert(asked).failed
    assert Path(asked.target).read_bytes() == b"mine"
    assert "No such file" in convert(asked._replace(target=str(tmp_path / "none" / "a"))).failed


def test_too_little_memory_and_no_pillow(tmp_path: Path, monkeypatch: Any) -> None:
    source = saved(shades(), tmp_path / "a.png")

    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", no_memory)
        assert refused(source, "webp") == "It needs more memory than a conversion may take."
    monkeypatch.setitem(__import__("sys").modules, "proxy.conversion.pictures", None)
    assert "install comfygate[convert]" in convert(order(source, "avif")).failed


@pytest.mark.parametrize(("kind", "duration_ms"), [("png", 70_001), ("png", 65_536_000), ("webp", 2**24)])
def test_a_frame_that_lasts_longer_than_the_format_can_say(tmp_path: Path, kind: str, duration_ms: int) -> None:
    source = saved(shades(), tmp_path / "a.avif", save_all=True, append_images=[frames()[1]], duration=duration_ms)
    assert refused(source, kind) == f"It has a frame that lasts longer than {kind} can say."


@pytest.mark.parametrize(("kind", "duration_ms"), [("png", 65_535), ("webp", 2**24 - 1)])
def test_a_frame_that_lasts_as_long_as_the_format_can_say(tmp_path: Path, kind: str, duration_ms: int) -> None:
    source = saved(shades(), tmp_path / "a.avif", save_all=True, append_images=[frames()[1]], duration=duration_ms)
    assert times_of(converted(source, kind)) == [duration_ms] * 2


def test_what_is_shown_more_often_than_a_webp_can_say(tmp_path: Path) -> None:
    source = saved(shades(), tmp_path / "a.png", save_all=True, append_images=[frames()[1]], duration=100, loop=70_000)
    assert refused(source, "webp").startswith("It is shown 70000 times, which webp cannot say")

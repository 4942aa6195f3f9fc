"""Reads a picture and writes it as another kind of picture, with Pillow. Runs in a process of its own (worker.py) and nowhere else.

What stays: frames and their times (in a WebP, equal ones as one of their whole time), the color profile, how it is turned (its pixels
are turned then, since not every reader of a WebP or AVIF turns it).
What goes: everything else that the file says, the workflow above all.
"""

from __future__ import annotations

import io
import warnings
from fractions import Fraction
from typing import IO, Any, BinaryIO, Final, cast

import PIL
from blake3 import blake3
from PIL import AvifImagePlugin, ExifTags, GifImagePlugin, Image, ImageOps, PngImagePlugin

from proxy.conversion import webp_frame
from proxy.conversion.order import NotConverted, Order

READ: Final = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP")
"""Those that ComfyUI's nodes write, and browsers show."""
_ANIMATED: Final = frozenset({"PNG", "WEBP", "GIF", "AVIF"})
_MAX_FRAMES: Final = 10_000
_MAX_PROFILE_BYTES: Final = 4 * 1024**2
_PROFILE_COLORS: Final = slice(16, 20)
"""ICC.1:2022, 7.2.6: the color space of the pixels."""
_WHITE: Final = (255, 255, 255, 255)
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "png": {"compress_level": 6},
    "jpeg": {"optimize": True},
    "webp": {"method": 4},
    "avif": {"max_threads": 1},
}
_MANY_PIXELS: Final = 8 * 10**6
"""What is more takes too long as an AVIF at the usual pace: 6, of 0 to 10."""
_MAX_SIDES: Final = {"webp": 16_383, "jpeg": 65_500, "avif": 32_768}
"""Of a picture, as far as the formats and their libraries go: RFC 9649, 2.7; libjpeg, JPEG_MAX_DIMENSION; libavif, AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT."""

_HAS_FRACTIONS: Final = int(PIL.__version__.partition(".")[0]) >= 13

AvifImagePlugin.DEFAULT_MAX_THREADS = 1
GifImagePlugin.LOADING_STRATEGY = GifImagePlugin.LoadingStrategy.RGB_ALWAYS
warnings.simplefilter("error", Image.DecompressionBombWarning)


class _Target:
    """A file that Pillow writes through Python: by its number it would write JPEGs itself, and not notice when a full disk takes only a part
    (encode.c, _encode_to_file; findings/pillow-short-write.sh)."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write
        self.flush = file.flush
        self.seek = file.seek
        self.tell = file.tell


def write_converted(source: BinaryIO, file: BinaryIO, order: Order) -> None:
    """Raises NotConverted, MemoryError, and whatever a decoder raises of a broken file."""
    Image.MAX_IMAGE_PIXELS = order.max_pixels
    target = cast("IO[bytes]", _Target(file))
    try:
        picture = Image.open(source, formats=READ)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large(order) from None
    with picture:
        frames = getattr(picture, "n_frames", 1) if picture.format in _ANIMATED else 1
        if picture.width * picture.height * frames > order.max_pixels or frames > _MAX_FRAMES:
            raise _too_large(order)
        if max(picture.size) > _MAX_SIDES.get(order.format, order.max_pixels):
            raise NotConverted(
                f"It has more than {_MAX_SIDES[order.format]} pixels on a side, which {order.format} has not."
            )
        if frames > 1:
            _write_animated(picture, frames, target, order)
        else:
            _write(picture, target, order)


def _too_large(order: Order) -> NotConverted:
    return NotConverted(f"It has too many pixels: at most {order.max_pixels} are converted, of all frames together.")


def _write(picture: Image.Image, target: IO[bytes], order: Order) -> None:
    turned = _is_turned(picture)
    profile = _profile_of(picture)
    shown = _prepared(ImageOps.exif_transpose(picture) if turned else picture, order.format)
    _check_profile(profile, shown, order.format)
    shown.load()
    shown.info = {}  # else its comment would go along
    _save(shown, target, order, _options(order, profile, shown.width * shown.height))


def _is_turned(picture: Image.Image) -> bool:
    return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _options(order: Order, profile: bytes, pixels: int) -> dict[str, Any]:
    options = {**_OPTIONS[order.format], "icc_profile": profile}
    if order.quality:
        options["quality"] = order.quality
    if order.format == "avif":
        options["speed"] = 6 if pixels <= _MANY_PIXELS else 9
    return options


def _save(picture: Image.Image, target: IO[bytes], order: Order, options: dict[str, Any]) -> None:
    """Raises MemoryError, OSError."""
    try:
        picture.save(target, format=order.format.upper(), **options)
    except (ValueError, RuntimeError) as error:
        raise MemoryError from error  # it was read already; encoders have many words for it
    except OSError as error:
        if error.errno is None:
            raise MemoryError from error
        raise


def _prepared(picture: Image.Image, kind: str) -> Image.Image:
    """In colors that this kind of picture has. JPEG has no transparency: what shines through is white."""
    if picture.mode.startswith("I;16"):
        if kind == "png":
            return picture
        picture = picture.point(lambda level: level / 257).convert("L")
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise NotConverted(f"Pictures in such colors ({picture.mode}) are not converted: save it as RGB.")
    is_gray = picture.mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        if kind != "jpeg":
            return picture.convert("LA" if is_gray and kind == "png" else "RGBA")
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, _WHITE), clear)
    return picture.convert("L" if is_gray else "RGB")


def _profile_of(picture: Image.Image) -> bytes:
    """b"" for none."""
    profile = picture.info.get("icc_profile") or b""
    if len(profile) > _MAX_PROFILE_BYTES:
        raise NotConverted("Its color profile is too large.")
    return bytes(profile)


def _check_profile(profile: bytes, shown: Image.Image, kind: str) -> None:
    """A profile of other colors than the pixels' would make others of them."""
    is_gray = shown.mode in ("L", "LA") or shown.mode.startswith("I;16")
    if kind in ("webp", "avif"):  # which have no gray, or are not read so everywhere
        is_gray = False
    if profile and profile[_PROFILE_COLORS] != (b"GRAY" if is_gray else b"RGB "):
        raise NotConverted(f"Its color profile is not of the colors that it would have as {kind}.")


def _write_animated(picture: Image.Image, frames: int, target: IO[bytes], order: Order) -> None:
    if order.format == "jpeg":
        raise NotConverted(f"It has {frames} frames, and a JPEG has one: convert it to webp, avif or png.")
    if _is_turned(picture) or picture.info.get("default_image"):
        raise NotConverted("Animated pictures that are turned, or have a still one besides, are not converted.")
    profile = _profile_of(picture)
    durations_ms, is_repeated, before = [], [], b""
    for place in range(frames):
        picture.seek(place)
        picture.load()
        if picture.mode not in ("L", "LA", "RGB", "RGBA", "P"):
            raise NotConverted(f"Pictures in such colors ({picture.mode}) are not converted: save it as RGB.")
        durations_ms.append(round(picture.info.get("duration") or 0))
        shown = blake3(picture.convert("RGBA").tobytes()).digest()
        is_repeated.append(shown == before)
        before = shown
    picture.seek(0)
    loops = _loops_of(picture)
    _check_times(durations_ms, loops, order.format)
    _check_profile(profile, picture, order.format)
    options = _options(order, profile, picture.width * picture.height * frames)
    options |= {"save_all": True, "duration": durations_ms, "loop": loops}
    if order.format == "webp":
        _save_webp(picture, target, order, options)
        return
    if order.format == "png":
        # Those of the picture that is read were about its own parts of frames.
        options |= {"disposal": _disposals(is_repeated), "blend": PngImagePlugin.Blend.OP_SOURCE}
    _save(picture, target, order, options)


def _check_times(durations_ms: list[int], loops: int, kind: str) -> None:
    """Those with which an encoder fails as it does without memory. loops: see _loops_of."""
    if kind == "webp" and loops > 0xFFFF:  # 2.7.1.1
        raise NotConverted(
            f"It is shown {loops} times, which webp cannot say: it can be shown for ever, or 65535 times."
        )
    has = {"png": _png_has, "webp": _webp_has}.get(kind)
    if has is not None and not all(map(has, durations_ms)):
        raise NotConverted(f"It has a frame that lasts longer than {kind} can say.")


def _png_has(duration_ms: int) -> bool:
    """A fraction of seconds, of two bytes each (third edition, 11.3.6.2); of Pillow before 13 it is of thousandths."""
    return (Fraction(duration_ms, 1000).numerator if _HAS_FRACTIONS else duration_ms) <= 0xFFFF


def _webp_has(duration_ms: int) -> bool:
    """RFC 9649, 2.7.1.1."""
    return duration_ms <= 0xFFFFFF


def _disposals(is_repeated: list[bool]) -> list[PngImagePlugin.Disposal]:
    """Pillow makes one frame of equal ones, and a picture without times where all are equal, unless they are taken away in different ways
    (PngImagePlugin.py, _write_multiple_frames). Before and behind the second of two equal frames there is the same to be seen.
    """
    found = [PngImagePlugin.Disposal.OP_NONE]
    for repeated in is_repeated[1:]:
        is_other = repeated and found[-1] == PngImagePlugin.Disposal.OP_NONE
        found.append(PngImagePlugin.Disposal.OP_PREVIOUS if is_other else PngImagePlugin.Disposal.OP_NONE)
    return found


def _save_webp(picture: Image.Image, target: IO[bytes], order: Order, options: dict[str, Any]) -> None:
    """libwebp makes one frame of equal ones, and a picture without a time where it has made one of all (anim_encode.c, OptimizeSingleFrame)."""
    made = io.BytesIO()
    _save(picture, made, order, options)
    written = made.getvalue()
    if not webp_frame.is_animated(written):
        written = webp_frame.animation_of(written, picture.size, sum(options["duration"]), options["loop"])
    target.write(written)


def _loops_of(picture: Image.Image) -> int:
    """How often it is shown in all; 0 for ever. A GIF says how often it is shown again, and one that says nothing is shown once."""
    if picture.format != "GIF":
        return int(picture.info.get("loop", 0))
    again = picture.info.get("loop")
    return 1 if again is None else again + 1 if again else 0

"""Which files may be uploaded: by the first bytes, which must be of the family (image, audio, video) that the extension names.

A name without an extension is judged by the bytes alone. Everything else is refused.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from policy.violation import Reason, Violation

HEAD_BYTES: Final = 512
"""How much of a file decides."""

DEFAULT_UPLOAD_TYPES: Final = frozenset({"image", "audio", "video", "mask"})

_IMAGES: Final = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpg": rb"\xff\xd8\xff",
    "jpeg": rb"\xff\xd8\xff",
    "jfif": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "gif": rb"GIF8[79]a",
    "bmp": rb"BM.{12}",
    "tif": rb"II\*\0|MM\0\*",
    "tiff": rb"II\*\0|MM\0\*",
    "avif": rb"....ftypavi[fs]",
}
_MP4 = rb"....(?:ftyp|moov|mdat|wide|free|skip)"
_EBML = rb"\x1aE\xdf\xa3"
_TYPES: Final = {
    "image": _IMAGES,
    "mask": {"png": _IMAGES["png"], "webp": _IMAGES["webp"]},
    "audio": {
        "wav": rb"RIFF....WAVE",
        "mp3": rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]",
        "flac": rb"fLaC",
        "ogg": rb"OggS",
        "oga": rb"OggS",
        "opus": rb"OggS",
        "m4a": _MP4,
        "aac": rb"\xff[\xf0\xf1\xf8\xf9]",
        "aiff": rb"FORM....AIF[FC]",
        "weba": _EBML,
    },
    "video": {
        "mp4": _MP4,
        "m4v": _MP4,
        "mov": _MP4,
        "webm": _EBML,
        "mkv": _EBML,
        "avi": rb"RIFF....AVI ",
        "mpg": rb"\0\0\x01[\xba\xb3]",
        "mpeg": rb"\0\0\x01[\xba\xb3]",
    },
    "3d": {
        "glb": rb"glTF",
        "gltf": rb"\s*\{",
        "ply": rb"ply\r?\n",
        "fbx": rb"Kaydara FBX Binary",
        "obj": rb"[^\0<]*\Z",
        "stl": rb"[^<]",
    },
    "text": {"pdf": rb"%PDF-", "txt": rb"[^\0<]*\Z"},
    "latent": {"latent": rb".{8}\{"},
    "heic": dict.fromkeys(("heic", "heif"), rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
    "jxl": {"jxl": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"},
    "avif": {"avif": _IMAGES["avif"]},
    "exr": {"exr": rb"v/1\x01"},
    "psd": {"psd": rb"8BPS"},
}
UPLOAD_TYPES: Final = frozenset(_TYPES)
"""What `upload_types` may list. What is not among the default ones is for those who need it."""

_FAMILIES: Final = {kind: kind for kind in ("image", "audio", "video")} | dict.fromkeys(
    ("mask", "heic", "jxl", "avif", "exr", "psd"), "image"
)
"""Kinds whose content may stand under any extension of the same family: programs read these by content. Others are read by extension."""

_EXTENSION = re.compile(r"(?=[0-9]*[a-z])[a-z0-9]{1,12}")

_SIGNATURES = {
    kind: {extension: re.compile(pattern, re.DOTALL) for extension, pattern in extensions.items()}
    for kind, extensions in _TYPES.items()
}
# SECURITY: FFmpeg knows playlists by what stands in them and opens the files that they name, a neighbour's too; the others run in a browser
# (test_media.py::test_active_and_listing_content_is_refused).
_ACTIVE = re.compile(rb"(?i)#EXTM3U|ffconcat version|<MPD|<smil|<asx|<html|<!doctype|<svg|<script|<\?xml|\[playlist\]")


def check_media(filename: str, head: bytes, upload_types: frozenset[str]) -> None:
    """Raises Violation(file-type-refused) unless the extension is of a permitted type and the first bytes are of the same family.

    head: the first `HEAD_BYTES` of the file, or all of a shorter one.
    """
    head = head[:HEAD_BYTES]
    extensions = _extensions_of(filename)
    wanted: list[str | None] = [*extensions] or [None]
    for extension in wanted:
        signatures = _signatures_for(extension, upload_types)
        if not signatures:
            allowed = sorted({name for kind in upload_types for name in _SIGNATURES.get(kind, {})})
            raise _refused("Files of this type are not accepted.", f"allowed: {', '.join(allowed)}")
        if _ACTIVE.search(head) or not any(signature.match(head) for signature in signatures):
            expected = f"{extension}, or another type of its family" if extension else "a picture, a sound or a video"
            raise _refused("The content is not what the file's name says.", f"expected: {expected}")


def extension_of(head: bytes, family: str, upload_types: frozenset[str]) -> str | None:
    """The extension that the first bytes have, among the permitted ones of a family (image, audio, video); None where they are of none of them."""
    kinds = sorted(kind for kind in upload_types if _FAMILIES.get(kind) == family)
    head = head[:HEAD_BYTES]
    signatures = (found for kind in kinds for found in _SIGNATURES[kind].items())
    return next((extension for extension, signature in signatures if signature.match(head)), None)


def _extensions_of(filename: str) -> list[str]:
    """The extensions that programs see in a name. Windows drops dots and spaces at the end, and takes what follows a ":" for a stream."""
    visible = "".join(character for character in filename if unicodedata.category(character) != "Cf")
    parts = unicodedata.normalize("NFKC", visible).lower().split(":")
    found = (part.rstrip(". ").rpartition(".")[2] for part in parts if "." in part.rstrip(". "))
    return [extension for extension in found if _EXTENSION.fullmatch(extension)]


def _signatures_for(extension: str | None, upload_types: frozenset[str]) -> list[re.Pattern[bytes]]:
    kinds = [kind for kind in sorted(upload_types) if kind in _SIGNATURES]
    named = {kind for kind, signatures in _SIGNATURES.items() if extension in signatures}
    families = {_FAMILIES.get(kind) for kind in named} if extension else {*_FAMILIES.values()}
    found = [list(_SIGNATURES[kind].values()) for kind in kinds if _FAMILIES.get(kind) in families - {None}]
    found += [[_SIGNATURES[kind][extension]] for kind in kinds if extension and kind in named and kind not in _FAMILIES]
    return [signature for signatures in found for signature in signatures]


def _refused(message: str, details: str) -> Violation:
    return Violation(Reason.FILE_TYPE_REFUSED, message, details)

"""Which files may be uploaded: by the extension and by the first bytes, which must agree. Everything else is refused."""

from __future__ import annotations

import re
from typing import Final

from policy.violation import Reason, Violation

HEAD_BYTES: Final = 512
"""How much of a file decides."""

DEFAULT_UPLOAD_TYPES: Final = frozenset({"image", "audio", "video", "mask"})

_IMAGES: Final = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpg": rb"\xff\xd8\xff",
    "jpeg": rb"\xff\xd8\xff",
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
}
UPLOAD_TYPES: Final = frozenset(_TYPES)
"""What `upload_types` may list. 3d, text and latent are for those who need them."""

_SIGNATURES = {
    kind: {extension: re.compile(pattern, re.DOTALL) for extension, pattern in extensions.items()}
    for kind, extensions in _TYPES.items()
}
# SECURITY: FFmpeg knows playlists by what stands in them and opens the files that they name, a neighbour's too; the others run in a browser
# (test_media.py::test_active_and_listing_content_is_refused).
_ACTIVE = re.compile(rb"(?i)#EXTM3U|ffconcat version|<MPD|<smil|<asx|<html|<!doctype|<svg|<script|<\?xml|\[playlist\]")


def check_media(filename: str, head: bytes, upload_types: frozenset[str]) -> None:
    """Raises Violation(file-type-refused) unless the extension is of a permitted type and the first bytes are what it says.

    head: the first `HEAD_BYTES` of the file, or all of a shorter one.
    """
    _, dot, extension = filename.rpartition(".")
    extension = extension.lower() if dot else ""
    signatures = [
        signature
        for kind in sorted(upload_types)
        if (signature := _SIGNATURES.get(kind, {}).get(extension)) is not None
    ]
    if not signatures:
        allowed = sorted({name for kind in upload_types for name in _SIGNATURES.get(kind, {})})
        raise _refused("Files of this type are not accepted.", f"allowed: {', '.join(allowed)}")
    head = head[:HEAD_BYTES]
    if _ACTIVE.search(head) or not any(signature.match(head) for signature in signatures):
        raise _refused("The content is not what the file's name says.", f"expected: {extension}")


def _refused(message: str, details: str) -> Violation:
    return Violation(Reason.FILE_TYPE_REFUSED, message, details)

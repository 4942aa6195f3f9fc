"""Files that stand in the JSON of a call, as data URLs (RFC 2397) in base64."""

from __future__ import annotations

import binascii
import re
from typing import Final

from policy.values import value
from policy.violation import Reason, Violation

SCHEME: Final = "data:"
MAX_BYTES: Final = 8 * 1024**2
"""Of one file, decoded. What is larger is uploaded, and streams."""
_HEAD: Final = re.compile(r"data:([a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60})((?:;[^;,]{1,100}){0,8}?);base64", re.IGNORECASE)
_MAX_HEAD: Final = 1000
_EXTENSIONS: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/avif": "avif",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
}


@value
class DataFile:
    """name: made of the parameter's and the type's; the URL has none."""

    name: str
    data: bytes


def is_data_url(text: str) -> bool:
    return text[: len(SCHEME)].lower() == SCHEME


def read_data_url(parameter: str, text: str) -> DataFile:
    """Raises Violation(argument-refused)."""
    at = text.find(",", 0, _MAX_HEAD)
    match = _HEAD.fullmatch(text, 0, at) if at > 0 else None
    if match is None:
        raise _refused(parameter, "write a data URL as data:image/png;base64,…")
    extension = _EXTENSIONS.get(match[1].lower())
    if extension is None:
        raise _refused(parameter, f"data URLs are of one of these types: {', '.join(_EXTENSIONS)}")
    if (len(text) - at - 1) * 3 // 4 > MAX_BYTES + 2:
        raise _too_large(parameter)
    try:
        data = binascii.a2b_base64(text[at + 1 :].encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _refused(parameter, "the data URL is not base64") from None
    if len(data) > MAX_BYTES:
        raise _too_large(parameter)
    if not data:
        raise _refused(parameter, "the data URL is empty")
    return DataFile(f"{parameter}.{extension}", data)


def _too_large(parameter: str) -> Violation:
    return _refused(
        parameter,
        f"a data URL holds at most {MAX_BYTES // 1024**2} MiB: send multipart/form-data, or upload the file first and give the id of the asset",
    )


def _refused(parameter: str, rule: str) -> Violation:
    return Violation(Reason.ARGUMENT_REFUSED, f"The argument `{parameter}` is not accepted: {rule}.", parameter)

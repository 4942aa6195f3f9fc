"""What tells that a file is still the one that an asset is a record of: its ETag, as ComfyUI's server (aiohttp) and proxy/http/file_sending.py write it."""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDict

_ETAG: Final = re.compile(r'(?:W/)?"([0-9a-f]{1,16}-[0-9a-f]{1,16})"')


def time_of(stamp: str) -> float:
    """When a file with this stamp was written, in Unix seconds of the machine where it lies."""
    return int(stamp.partition("-")[0], 16) / 1e9


def stamp_of_etag(headers: CIMultiDict[str]) -> str:
    """ "" where an answer has no such ETag."""
    found = _ETAG.fullmatch(headers.get("ETag", ""))
    return found[1] if found else ""

"""The codecs of content codings. Loads nothing else: the process that compresses holds no more (proxy/upstream/compressor_process.py)."""

from __future__ import annotations

import sys
import zlib
from typing import Final

CODINGS: Final = ("zstd", "br", "gzip")
"""The one that is liked best first: by what a browser needs to read it, since all are made beforehand."""
_GZIP: Final = 31  # window bits of zlib: 15, and 16 for gzip's frame
_ZSTD_LEVEL: Final = 19
_BROTLI_QUALITY: Final = 9
"""The next one takes seven times as long for a fifteenth less, and nearly every browser takes zstd."""
_GZIP_LEVEL: Final = 9
_QUICK_GZIP_LEVEL: Final = 6


def compress(coding: str, data: bytes) -> bytes:
    """For what is kept, as small as it becomes: a second for two megabytes."""
    if coding == "gzip":
        return zlib.compress(data, _GZIP_LEVEL, _GZIP)
    if coding == "br":
        import brotli

        return bytes(brotli.compress(data, quality=_BROTLI_QUALITY))
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(data, _ZSTD_LEVEL)


def quick_gzip(data: bytes) -> bytes:
    """For what is asked for now, in some milliseconds a megabyte; a coding that every client with any takes."""
    return zlib.compress(data, _QUICK_GZIP_LEVEL, _GZIP)


def gunzip(packed: bytes) -> bytes:
    """Of the gate's own making: there is no bound."""
    return zlib.decompress(packed, _GZIP)

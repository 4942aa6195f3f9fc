"""Reads a few places of a file as ComfyUI sends them: a part of it, asked for by `Range` (RFC 9110, 14)."""

from __future__ import annotations

from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamPath
from policy.media.editing import MAX_SPAN_BYTES
from policy.namespace import Folder
from policy.rules.files import view_of
from proxy.http import hdrs
from proxy.http.errors import ReplyTooLarge
from proxy.upstream.client import Upstream

_BLOCK_BYTES: Final = 64 * 1024
"""Asked for at least: heads of parts stand close together."""
_LIMIT_S: Final = 30.0


class Unreadable(Exception):
    """It would take too many calls, the file is another one by now, or ComfyUI gives no parts."""


class RangeReader:
    """etag: of the file that is read, and of no other one. max_calls: None for one that is to be read whole."""

    def __init__(
        self, upstream: Upstream, folder: Folder, path: UpstreamPath, etag: str, max_calls: int | None = None
    ) -> None:
        self._upstream = upstream
        self._call = view_of("GET", folder, path)
        self._etag = etag
        self._max_calls = max_calls
        self._calls = 0
        self._start = 0
        self._block = b""

    async def read(self, offset: int, size: int) -> bytes:
        """Fewer bytes at the end of the file alone. Raises Unreadable, UpstreamUnavailable, UpstreamTimeout."""
        first = offset - self._start
        if not 0 <= first <= first + size <= len(self._block):
            self._block = await self._ask(offset, max(size, _BLOCK_BYTES))
            self._start, first = offset, 0
        return self._block[first : first + size]

    async def _ask(self, offset: int, size: int) -> bytes:
        self._calls += 1
        if self._max_calls is not None and self._calls > self._max_calls:
            raise Unreadable
        fields = CIMultiDict({hdrs.RANGE: f"bytes={offset}-{offset + size - 1}", hdrs.ACCEPT_ENCODING: "identity"})
        async with await self._upstream.open(self._call, fields, time_limit_s=_LIMIT_S) as stream:
            if stream.status == 416:
                return b""
            if stream.status != 206 or stream.headers.get(hdrs.ETAG, "") != self._etag:
                raise Unreadable
            try:
                return await stream.body(MAX_SPAN_BYTES)
            except ReplyTooLarge:
                raise Unreadable from None

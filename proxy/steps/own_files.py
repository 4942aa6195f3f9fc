"""Answers of ComfyUI's that are files which a job made: as their tenant gets them, whole or in part."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamCall
from proxy.files.edited_bodies import EditedPart
from proxy.files.known_edits import Place
from proxy.files.tenant_files import TenantFiles
from proxy.http import hdrs
from proxy.http.own_validators import own_fields
from proxy.http.replies import ForwardedReply, Source
from proxy.http.responses import forwarded_head
from proxy.steps.held import Held
from proxy.steps.permit import PermittedRequest
from proxy.upstream.cleaned_replies import WITH_WHOLE_BODY
from proxy.upstream.client import Upstream, UpstreamStream

Check = Callable[[UpstreamStream], Awaitable[None]]
"""Of each answer before it is shown."""
_PART: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


class OwnFiles:
    def __init__(self, upstream: Upstream, files: TenantFiles) -> None:
        self._upstream = upstream
        self._files = files

    async def forwarded(
        self,
        permitted: PermittedRequest,
        place: Place,
        call: UpstreamCall,
        fields: CIMultiDict[str],
        stream: UpstreamStream,
        held: Held,
        check: Check,
    ) -> ForwardedReply:
        """call, fields: what `stream` answers, which was checked. Raises UpstreamUnavailable, UpstreamTimeout, LimitExceeded, and what the check does."""
        etag, answer = stream.headers.get(hdrs.ETAG, ""), stream.connection.answer
        body: Source = stream
        part = _PART.fullmatch(stream.headers.get("Content-Range", ""))
        is_whole = part is not None and answer.content_length == int(part[2])  # players begin with `bytes=0-`
        if stream.status == 206 and answer.has_body and not is_whole:
            edits = None if part is None else await self._files.of_part(place, etag, int(part[2]), held.callback)
            if part is None or edits is None:
                # The whole is an answer to a range, too (RFC 9110, 14.2).
                fields.popall(hdrs.RANGE, None)
                stream = await self._upstream.open(call, fields, time_limit_s=permitted.route.time_limit_s)
                held.callback(stream.close)
                await check(stream)
                return await self.forwarded(permitted, place, call, fields, stream, held, check)
            body = EditedPart(stream, edits, int(part[1]))
        elif stream.status in (200, 206) and answer.has_body:
            body = self._files.body_of(place, stream)
        permitted.record.status = stream.status
        left_out = WITH_WHOLE_BODY if stream.is_small else frozenset[str]()
        own, shared = forwarded_head(
            permitted.record, own_fields(stream.fields), permitted.route.caching, "", left_out=left_out
        )
        return ForwardedReply(stream.status, own, await _whole(body) if stream.is_small else body, shared)


async def _whole(body: Source) -> bytes:
    collector = _Collector()
    await body.pour(collector)
    return b"".join(collector.pieces)


class _Collector:
    """Takes a small body, see `Taker`."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def take(self, piece: bytes | memoryview) -> bool:
        self.pieces.append(bytes(piece))
        return True

    async def ready(self) -> None:
        return

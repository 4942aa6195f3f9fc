"""Answers that are read before they go on, when they are text: what ComfyUI is asked for, and how they are sent."""

from __future__ import annotations

from typing import Final

from multidict import CIMultiDict

from policy.call import UpstreamReply
from policy.routes import Caching, CleanReply
from proxy.http import hdrs
from proxy.http.responses import CONTENT_SECURITY_POLICY, SANDBOX
from proxy.upstream.client import UpstreamStream

WITH_WHOLE_BODY: Final = frozenset({"content-length"})
"""A body that is sent whole is framed where it is sent."""
_OF_THE_BODY: Final = frozenset({"content-length", "etag", "last-modified", "accept-ranges"})
_BODILESS: Final = frozenset({204, 304})


def fields_for_cleaning(fields: CIMultiDict[str]) -> CIMultiDict[str]:
    """A part of a text, or a compressed one, cannot be read."""
    for name in (hdrs.RANGE, hdrs.IF_RANGE):
        fields.popall(name, None)
    fields[hdrs.ACCEPT_ENCODING] = "identity"
    return fields


async def read_text(stream: UpstreamStream, clean: CleanReply, method: str) -> UpstreamReply | None:
    """The bounded answer; None for one that is streamed as it comes. Raises ReplyTooLarge."""
    if method == hdrs.METH_HEAD or stream.status in _BODILESS:
        return None
    return await stream.whole(clean.max_bytes) if _is_text(stream, clean) else None


def fields_left_out(stream: UpstreamStream, clean: CleanReply, others: frozenset[str]) -> frozenset[str]:
    """Of a head without its body: the length and the validators of a text that is sent as another one, and the others."""
    return others | _OF_THE_BODY if _is_text(stream, clean) else others


def _is_text(stream: UpstreamStream, clean: CleanReply) -> bool:
    return clean.is_read(stream.headers.get(hdrs.CONTENT_TYPE, ""))


def headers_of_cleaned(caching: Caching) -> tuple[tuple[str, str], ...]:
    """As what is forwarded has them (proxy/http/responses.py)."""
    return (
        (hdrs.CACHE_CONTROL, caching.value),
        (hdrs.VARY, "Authorization, Cookie, X-API-Key"),
        (CONTENT_SECURITY_POLICY, SANDBOX),
        ("X-Content-Type-Options", "nosniff"),
    )

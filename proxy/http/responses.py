"""The heads of answers: of those that the gate makes, and of what it forwards."""

from __future__ import annotations

import re
from typing import Final

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict, MultiMapping

from policy.call import ClientReply
from policy.routes import Caching
from proxy.http import headers
from proxy.http.request_record import RequestRecord

SERVER: Final = "comfygate"
CONTENT_SECURITY_POLICY: Final = "Content-Security-Policy"
SANDBOX: Final = "sandbox"
"""SECURITY: a picture or document that somebody uploaded runs no script on the origin of the session cookie, also where ComfyUI
would show it inline (0.3.64 does so with SVG)."""
MAX_REASON_CHARACTERS: Final = 200
SMALL_BYTES: Final = 64 * 1024
"""An answer of a known size up to this is read and written at once."""
NO_STORE: Final = "private, no-store"
# Vite puts a hash of the content into the name (`-` and 8 of base64url): such a file never changes. Other files may look like it.
_HASHED = re.compile(r".+-[A-Za-z0-9_-]{8}(?:\.[a-z0-9]{2,5}){1,2}")
_KEPT: Final = frozenset({200, 206, 304})
_YEAR_S: Final = 31_536_000


def reason_phrase(sentence: str) -> str:
    """A sentence as it may stand in a status line (RFC 9112, 4): the web UI shows a failed upload's or save's reason phrase, and nothing else of it.

    SECURITY: printable ASCII alone, so that no text of a client's ends the line. test_responses.py::test_the_reason_phrase
    """
    plain = "".join(each if " " <= each <= "~" else "?" for each in " ".join(sentence.split()))
    return plain if len(plain) <= MAX_REASON_CHARACTERS else f"{plain[: MAX_REASON_CHARACTERS - 3]}..."


def to_response(record: RequestRecord, reply: ClientReply) -> web.Response:
    """An answer of the gate's own: bytes as they are, any other value as JSON."""
    body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
    response = web.Response(status=reply.status, reason=reason_phrase(reply.phrase) or None, body=body)
    response.headers[hdrs.CONTENT_TYPE] = reply.content_type
    for name, value in reply.headers:
        response.headers.add(name, value)
    response.headers.setdefault(hdrs.CACHE_CONTROL, NO_STORE)
    add_common_headers(record, response.headers)
    record.status, record.sent_bytes = reply.status, len(body)
    return response


def add_common_headers(record: RequestRecord, fields: CIMultiDict[str]) -> None:
    """What every answer carries."""
    fields[hdrs.SERVER] = SERVER
    fields["X-Request-Id"] = record.request_id
    for name, value in record.response_headers:
        if name == hdrs.VARY:
            headers.merge_vary(fields, (value,))
        else:
            fields[name] = value


def forwarded_headers(
    record: RequestRecord, fields: MultiMapping[str], caching: Caching, last_segment: str, *, is_shared: bool = False
) -> CIMultiDict[str]:
    """The head of an answer that ComfyUI gave with record.status: its end-to-end fields, with the gate's own word on caching."""
    kept = headers.to_client(fields)
    headers.respell_disposition(kept)
    if record.status not in _KEPT:
        caching = Caching.PRIVATE  # an edge that keeps a 404 under a hashed name keeps it for a year
    kept[hdrs.CACHE_CONTROL] = cache_control(caching, last_segment, is_shared=is_shared)
    if not caching.is_web_ui:
        headers.merge_vary(kept, ("Authorization", "Cookie", "X-API-Key"))
        kept[CONTENT_SECURITY_POLICY] = SANDBOX
    kept["X-Content-Type-Options"] = "nosniff"
    add_common_headers(record, kept)
    return kept


def cache_control(caching: Caching, last_segment: str, *, is_shared: bool = False) -> str:
    """An edge keeps pictures and scripts by their extension unless it is told not to; only hashed names are safe to keep.

    is_shared: the operator lets an edge give the web UI's hashed files to everybody, without asking the gate who it is.
    """
    if not caching.is_web_ui:
        return str(caching.value)
    if not is_hashed(caching, last_segment):
        return Caching.REVALIDATE.value
    return f"{'public' if is_shared else 'private'}, max-age={_YEAR_S}, immutable"


def is_hashed(caching: Caching, last_segment: str) -> bool:
    """Whether the name of a file of the web UI holds a hash of its content."""
    return caching is Caching.HASHED and _HASHED.fullmatch(last_segment) is not None


def is_navigation(request: web.BaseRequest) -> bool:
    """Whether a person's browser opens a page, as against a script that wants an answer."""
    if request.method != "GET" or "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
        return False
    return request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and not is_upgrade(request)


def is_browser(request: web.BaseRequest) -> bool:
    """Sec-Fetch-Mode comes on secure origins alone, so the name that all browsers share counts too."""
    return "Sec-Fetch-Mode" in request.headers or request.headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/")


def is_upgrade(request: web.BaseRequest) -> bool:
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"

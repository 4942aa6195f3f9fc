"""The heads of answers: of those that the gate makes, and of what it forwards."""

from __future__ import annotations

import re
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

import orjson
from multidict import CIMultiDict, istr

from policy.call import ClientReply
from policy.routes import Caching
from proxy.http import hdrs, headers
from proxy.http.headers import KnownFields, RawFields
from proxy.http.request import Request
from proxy.http.request_record import RequestRecord
from proxy.http.response_head import SharedFields, shared_fields

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
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
"""16 bytes in base64 (RFC 6455, 4.1)."""
_REQUEST_ID: Final = istr("X-Request-Id")
_SANDBOXED: Final = (CONTENT_SECURITY_POLICY, SANDBOX)
_NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")
_SERVED_BY: Final = ("Server", SERVER)
_CACHE_CONTROL: Final = "Cache-Control"
_NOT_STORED: Final = (_CACHE_CONTROL, NO_STORE)
_CONTENT_TYPE: Final = "Content-Type"
_EACH_ONCE: Final = frozenset({"RateLimit-Policy", "RateLimit", "X-Comfy-Request-Id"})
_NAME: Final = itemgetter(0)
_SAID_OF_OWN: Final = (_SANDBOXED, _NO_SNIFFING, _SERVED_BY)
_SAID_OF_WEB_UI: Final = (_NO_SNIFFING, _SERVED_BY)
_CREDENTIALS: Final[tuple[str, ...]] = ("Authorization", "Cookie", "X-API-Key")
_KEPT: Final = frozenset({200, 206, 304})
_YEAR_S: Final = 31_536_000


def reason_phrase(sentence: str) -> str:
    """A sentence as it may stand in a status line (RFC 9112, 4): the web UI shows a failed upload's or save's reason phrase, and nothing else of it.

    SECURITY: printable ASCII alone, so that no text of a client's ends the line. test_responses.py::test_the_reason_phrase
    """
    plain = "".join(each if " " <= each <= "~" else "?" for each in " ".join(sentence.split()))
    return plain if len(plain) <= MAX_REASON_CHARACTERS else f"{plain[: MAX_REASON_CHARACTERS - 3]}..."


class OwnAnswer(NamedTuple):
    """What `Request.send` takes."""

    fields: list[tuple[str, str]]
    body: bytes
    reason: str
    shared: SharedFields | None


def own_answer(record: RequestRecord, reply: ClientReply) -> OwnAnswer:
    """An answer of the gate's own. Its body: bytes as they are, any other value as JSON."""
    body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
    reason = reason_phrase(reply.phrase) if reply.phrase else ""
    if not reply.headers and _EACH_ONCE.issuperset(map(_NAME, record.response_headers)):  # no name is there twice
        fields = [("X-Request-Id", record.request_id), *record.response_headers]
        return OwnAnswer(fields, body, reason, _said_of_type(reply.content_type))
    all_fields = CIMultiDict([(_CONTENT_TYPE, reply.content_type), *reply.headers])
    all_fields.setdefault(hdrs.CACHE_CONTROL, NO_STORE)
    add_common_headers(record, all_fields)
    return OwnAnswer(list(all_fields.items()), body, reason, None)


@lru_cache(maxsize=64)
def _said_of_type(content_type: str) -> SharedFields:
    return shared_fields(((_CONTENT_TYPE, content_type), _NOT_STORED, _SERVED_BY))


def add_common_headers(record: RequestRecord, fields: CIMultiDict[str]) -> None:
    """What every answer carries."""
    fields[hdrs.SERVER] = SERVER
    fields[_REQUEST_ID] = record.request_id
    for name, value in record.response_headers:
        if name == "Vary":
            headers.merge_vary(fields, (value,))
        else:
            fields[name] = value


def forwarded_head(
    record: RequestRecord,
    fields: RawFields,
    caching: Caching,
    last_segment: str,
    *,
    is_shared: bool = False,
    left_out: frozenset[str] = frozenset(),
) -> tuple[list[tuple[str, str]], SharedFields]:
    """The head of an answer that ComfyUI gave with record.status: its end-to-end fields, with the gate's own word on caching. What of it is this
    answer's alone, and what others like it have too.

    left_out: names of fields, in lower case, that are not passed on besides.
    """
    if record.status not in _KEPT:
        caching = Caching.PRIVATE  # an edge that keeps a 404 under a hashed name keeps it for a year
    words, vary = cache_control(caching, last_segment, is_shared=is_shared), () if caching.is_web_ui else _CREDENTIALS
    own = [("X-Request-Id", record.request_id)]
    for field in record.response_headers:
        if field[0] == "Vary":
            vary += (field[1],)
        else:
            own.append(field)
    if not isinstance(fields, KnownFields):
        return own, _shared_head(fields, words, caching.is_web_ui, vary, left_out)
    said = (words, caching.is_web_ui, vary, left_out)
    known: SharedFields | None = fields.derived.get(said)
    if known is None:
        known = fields.derived[said] = _shared_head(fields, *said)
    return own, known


def _shared_head(
    fields: RawFields, caching: str, is_web_ui: bool, vary: tuple[str, ...], left_out: frozenset[str]
) -> SharedFields:
    passed_on, upstreams_vary = headers.from_upstream(fields, left_out)
    kept = [*passed_on, (_CACHE_CONTROL, caching), *(_SAID_OF_WEB_UI if is_web_ui else _SAID_OF_OWN)]
    if upstreams_vary or vary:
        kept.append(("Vary", headers.merged_vary(upstreams_vary, vary)))
    return shared_fields(kept)


def cache_control(caching: Caching, last_segment: str, *, is_shared: bool = False) -> str:
    """An edge keeps pictures and scripts by their extension unless it is told not to; only hashed names are safe to keep.

    is_shared: the operator lets an edge give the web UI's hashed files to everybody, without asking the gate who it is.
    """
    if not caching.is_web_ui:
        return caching.words
    if not is_hashed(caching, last_segment):
        return Caching.REVALIDATE.value
    return f"{'public' if is_shared else 'private'}, max-age={_YEAR_S}, immutable"


def is_hashed(caching: Caching, last_segment: str) -> bool:
    """Whether the name of a file of the web UI holds a hash of its content."""
    return caching is Caching.HASHED and _HASHED.fullmatch(last_segment) is not None


def is_navigation(request: Request) -> bool:
    """Whether a person's browser opens a page, as against a script that wants an answer."""
    if request.method != "GET" or "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
        return False
    return request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and not is_upgrade(request)


def is_browser(request: Request) -> bool:
    """Sec-Fetch-Mode comes on secure origins alone, so the name that all browsers share counts too."""
    return "Sec-Fetch-Mode" in request.headers or request.headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/")


def can_upgrade(request: Request) -> bool:
    """Whether the handshake of a WebSocket can be answered (RFC 6455, 4.2.1)."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    tokens = {token.strip().lower() for value in request.headers.getall("Connection", ()) for token in value.split(",")}
    version = request.headers.get("Sec-WebSocket-Version", "")
    return request.is_upgrade and "upgrade" in tokens and version == "13" and _KEY.fullmatch(key) is not None


def is_upgrade(request: Request) -> bool:
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"

"""Where a caller's credential has no business: searched for in what goes on."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from policy.call import ClientCall
from policy.document import check_parts, parse_json
from policy.keyform import Presented, check_document, check_names, presented
from policy.routes import Body
from policy.violation import Violation
from proxy.auth.credentials import presented_texts
from proxy.http import headers

Query = tuple[tuple[str, str], ...]


def search_head(request: web.BaseRequest, query: Query, call: ClientCall, cookie_name: str) -> Presented:
    """What the request proved itself with. Raises Violation when it stands in the address beside `?token=`, or in a field that goes on.

    query: with the credentials that `call` is without.
    """
    credentials = presented(presented_texts(request.headers, query, cookie_name))
    fields = headers.forwarded_values(request.headers)
    texts = [*call.segments, *fields]
    for pair in call.query:
        texts += pair
    # A line end stands in no credential: what is found in all of it together stands in one of them.
    if credentials.stands_in("\n".join(texts)):
        check_names(credentials, fields, "in a header field")
        check_names(credentials, texts, "in the address")
    return credentials


def read_document(credentials: Presented, raw: bytes, kind: Body, max_parts: int) -> tuple[Any, bytes, tuple[str, ...]]:
    """The value of a bounded body, the bytes without credentials, and what was left out of them. Of a form, which is checked as a text, the bytes alone.

    An empty body is null, as for ComfyUI's clients that send none. Raises Violation(body-malformed | credential-misplaced).
    """
    if kind is Body.FORM:
        check_names(credentials, (raw.decode("utf-8", "replace"),), "in a form")
        return None, raw, ()
    try:
        check_parts(raw, max_parts)
    except Violation:
        if kind is Body.OPTIONAL_JSON:
            return None, b"", ()  # it is not looked at any further, and nothing of it goes on
        raise
    # SECURITY: what goes on to ComfyUI may go on from there, to other services and into files
    # (tests/security/test_misplaced_keys.py).
    raw, left_out = check_document(credentials, raw, max_parts)
    if not raw:
        return None, raw, left_out
    try:
        return parse_json(raw, max_parts=max_parts), raw, left_out
    except Violation:
        if kind is Body.OPTIONAL_JSON:
            return None, raw, left_out
        raise

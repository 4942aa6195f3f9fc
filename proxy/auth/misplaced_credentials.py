"""Where a caller's credential has no business: searched for in what goes on."""

from __future__ import annotations

from typing import Any, Final

from policy.call import ClientCall
from policy.document import check_parts, parse_json
from policy.keyform import Presented, check_document, check_names, presented
from policy.routes import Body
from policy.violation import Violation
from proxy.auth.credentials import presented_texts
from proxy.http import headers
from proxy.http.request import Request

Query = tuple[tuple[str, str], ...]
_FORWARDED: Final = "forwarded values"
"""Of Request.of_fields; what was presented stands there under the cookie's name, which a reload may change."""


def search_head(request: Request, query: Query, call: ClientCall, cookie_name: str) -> Presented:
    """What the request proved itself with. Raises Violation when it stands in the address beside `?token=`, or in a field that goes on.

    query: with the credentials that `call` is without.
    """
    derived = request.of_fields
    credentials: Presented | None = None if query else derived.get(cookie_name)
    if credentials is None:
        credentials = presented(presented_texts(request.headers, query, cookie_name))
        if not query:
            derived[cookie_name] = credentials
    fields = derived.get(_FORWARDED)
    if fields is None:
        fields = derived[_FORWARDED] = "\n".join(headers.forwarded_values(request.headers))
    names = "\n".join([*call.segments, *(text for pair in call.query for text in pair)])
    # A line end stands in no credential: what is found in all of it together stands in one of them.
    if credentials.stands_in(f"{names}\n{fields}"):
        check_names(credentials, (names,), "in the address")
        check_names(credentials, (fields,), "in a header field")
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

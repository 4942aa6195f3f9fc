"""Where a caller's credential has no business: searched for in what goes on, and told in the answer where it was left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from policy.call import ClientCall, ClientReply
from policy.document import check_parts, parse_json, read_upstream_json
from policy.keyform import Presented, check_document, check_names
from policy.routes import Body
from policy.violation import Violation
from proxy.http import headers


def search_head(credentials: Presented, request: web.BaseRequest, call: ClientCall) -> None:
    """Raises Violation when what the request proved itself with stands in the address beside `?token=`, or in a field that goes on.

    call: without the credentials of its query.
    """
    fields = headers.forwarded_values(request.headers)
    texts = [*call.segments, *fields]
    for pair in call.query:
        texts += pair
    # A line end stands in no credential: what is found in all of it together stands in one of them.
    if credentials.stands_in("\n".join(texts)):
        check_names(credentials, fields, "in a header field")
        check_names(credentials, texts, "in the address")


def read_document(credentials: Presented, raw: bytes, kind: Body, max_parts: int) -> tuple[Any, bytes, tuple[str, ...]]:
    """The value of a bounded body (None where the rule reads the bytes itself), the bytes without credentials, and what was left out of them.

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
    if kind is Body.RAW or not raw:
        return None, raw, left_out
    try:
        return parse_json(raw, max_parts=max_parts), raw, left_out
    except Violation:
        if kind is Body.OPTIONAL_JSON:
            return None, raw, left_out
        raise


def told(reply: ClientReply, left_out: tuple[str, ...]) -> ClientReply:
    """A reply that says what of the client's document was not sent on."""
    if not left_out:
        return reply
    value = reply.body if isinstance(reply.body, dict) else read_upstream_json(bytes(reply.body or b""))
    if not isinstance(value, dict):
        return reply
    notices = [
        {"type": "credential-left-out", "message": f"{name} held a key of the gate, which goes to no other service."}
        for name in left_out
    ]
    return replace(reply, body=value | {"notices": [*value.get("notices", ()), *notices]})

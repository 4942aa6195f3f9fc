"""Where a caller's credential has no business: searched for in what goes on, and told in the answer where it was left out."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from policy.call import ClientCall, ClientReply
from policy.document import read_upstream_json
from policy.keyform import Presented, check_names, presented
from proxy import headers
from proxy.credentials import presented_texts

Query = tuple[tuple[str, str], ...]


def search_head(request: web.BaseRequest, query: Query, call: ClientCall, cookie_name: str) -> Presented:
    """What the request proved itself with. Raises Violation when it stands in the address beside `?token=`, or in a field that goes on.

    query: with the credentials that `call` is without.
    """
    credentials = presented(presented_texts(request.headers, query, cookie_name))
    check_names(credentials, (*call.segments, *(text for pair in call.query for text in pair)), "in the address")
    check_names(credentials, headers.forwarded_values(request.headers), "in a header field")
    return credentials


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

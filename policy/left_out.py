"""Fields of a client's document that hold a key of the gate and are not sent on: how the answer tells of them."""

from __future__ import annotations

from dataclasses import replace

from policy.call import ClientReply
from policy.document import read_upstream_json


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

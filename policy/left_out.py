"""What of a client's document is not sent on: how the answer tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from policy.call import ClientReply
from policy.document import read_upstream_json

MAX_TOLD: Final = 16
"""Unknown members that are told by name."""
_MAX_NAME: Final = 64


def told(reply: ClientReply, left_out: tuple[str, ...]) -> ClientReply:
    """A reply that says which fields of the client's document held a key of the gate and were not sent on."""
    if not left_out:
        return reply
    notices = [
        {"type": "credential-left-out", "message": f"{name} held a key of the gate, which goes to no other service."}
        for name in left_out
    ]
    return _with(reply, notices)


def told_unknown(reply: ClientReply, names: Sequence[str]) -> ClientReply:
    """A reply that says which members of the client's document mean nothing here."""
    if not names:
        return reply
    notices = [
        {"type": "member-unknown", "message": f"`{name[:_MAX_NAME]}` means nothing here, and was passed over."}
        for name in names
    ]
    return _with(reply, notices[:MAX_TOLD])


def _with(reply: ClientReply, notices: list[dict[str, str]]) -> ClientReply:
    value = reply.body if isinstance(reply.body, dict) else read_upstream_json(bytes(reply.body or b""))
    if not isinstance(value, dict):
        return reply
    return replace(reply, body=value | {"notices": [*value.get("notices", ()), *notices]})

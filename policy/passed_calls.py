"""Calls that go on as they came."""

from __future__ import annotations

from typing import cast

from policy.call import ClientCall, Opaque, StreamedBody, UpstreamCall
from policy.rule_context import RuleInput


def unchanged(request: RuleInput) -> UpstreamCall:
    """The same path and query, minus credentials, which the pipeline took out: what UNCHANGED means."""
    return forward_call(request.call, has_body=False)


def forward_call(call: ClientCall, *, has_body: bool) -> UpstreamCall:
    return UpstreamCall(
        call.method,
        cast("tuple[Opaque, ...]", call.segments),
        cast("tuple[tuple[str, Opaque], ...]", call.query),
        StreamedBody() if has_body else None,
    )

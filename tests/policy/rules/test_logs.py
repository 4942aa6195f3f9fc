"""The log for tenants: one line in ComfyUI's shapes, and nothing is asked of ComfyUI."""

from __future__ import annotations

import pytest

from policy.call import ClientReply
from policy.principal import Role
from policy.routes import UNCHANGED, Rewrite
from policy.rules.logs import LINE
from policy.table import TABLE
from tests.policy.tenants import caller_of, request_of

SHAPES = [
    ("GET", ("internal", "logs"), f"{LINE}\n"),
    ("GET", ("internal", "logs", "raw"), {"entries": [{"t": "", "m": f"{LINE}\n"}], "size": {"cols": 80, "rows": 24}}),
    ("PATCH", ("internal", "logs", "subscribe"), b""),
]


@pytest.mark.parametrize(("method", "segments", "body"), SHAPES)
def test_a_tenant_gets_one_line_and_an_admin_the_log(method: str, segments: tuple[str, ...], body: object) -> None:
    match = TABLE.match(method, segments)
    assert match is not None
    rule = match.route.rule_for(caller_of("alice").principal)
    assert isinstance(rule, Rewrite)
    reply = rule.request(request_of(caller_of("alice")))
    assert isinstance(reply, ClientReply)
    assert (reply.status, reply.body) == (200, body)
    assert match.route.rule_for(caller_of("alice", Role.ADMIN).principal) is UNCHANGED

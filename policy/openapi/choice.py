"""Which document a client wants, and whether the one it was given before is still the same. What writes them is loaded when one is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from policy.call import ClientCall
from policy.functions.function import CallableFunction
from policy.violation import Reason, Violation

APIS: Final = ("functions", "v2")


def read_api(call: ClientCall) -> str:
    """Of which API a client wants the document. Raises Violation(query-malformed)."""
    api = call.first("api", APIS[0])
    if api not in APIS:
        raise Violation(Reason.QUERY_MALFORMED, f"`api` is one of {', '.join(APIS)}.", "api")
    return api


def version_of(functions: Mapping[str, CallableFunction]) -> str:
    """Changes with each function's settings and workflow."""
    named = sorted((name, called.function.version) for name, called in functions.items())
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]

"""GET /object_info: the permitted classes, tightened by the policy, with the tenant's own files in their lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from policy.catalogue import NodeClass
from policy.narrowing import narrow_class
from policy.rule_context import Caller, Request
from policy.rules.catalog import describe_class


def describe_all(request: Request) -> dict[str, Any]:
    """GET /object_info."""
    caller = request.caller
    return {
        name: _describe(node_class, caller)
        for name, node_class in caller.catalogue.classes.items()
        if caller.policy.permits(name)
    }


def describe_one(request: Request) -> dict[str, Any]:
    """GET /object_info/{node_class}: the same, of which one class is picked; `{}` for a class that is not permitted, as for one that is not there."""
    return describe_all(request)


def _describe(node_class: NodeClass, caller: Caller) -> Mapping[str, Any]:
    return describe_class(replace(node_class, document=narrow_class(node_class, caller.policy)), caller)

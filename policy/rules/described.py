"""GET /object_info: the permitted classes, tightened by the policy, with the tenant's own files in their lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from policy.catalogue import NodeClass
from policy.narrowing import narrow_class
from policy.rule_context import RuleContext, RuleInput
from policy.rules.catalog import describe_class


def describe_all(request: RuleInput) -> dict[str, Any]:
    """GET /object_info."""
    context = request.context
    return {
        name: _describe(node_class, context)
        for name, node_class in context.catalogue.classes.items()
        if context.policy.permits(name)
    }


def describe_one(request: RuleInput) -> dict[str, Any]:
    """GET /object_info/{node_class}: the same, of which one class is picked; `{}` for a class that is not permitted, as for one that is not there."""
    return describe_all(request)


def _describe(node_class: NodeClass, context: RuleContext) -> Mapping[str, Any]:
    return describe_class(replace(node_class, document=narrow_class(node_class, context.policy)), context)

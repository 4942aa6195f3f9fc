"""Constraints and budgets on the inputs of judged nodes; linked values count when they lead to a constant. Trusts the nodes' shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policy.catalogue import InputSpec
from policy.class_plan import BoundInput
from policy.constraints import BoundBudget, check_type
from policy.node_plan import NodePlan
from policy.workflow import Fault, Findings, NodeReason, is_link, shorten

MAX_FOLLOWED: Final = 100
ABSENT: Final = object()


class BoundChecks:
    """Checks the bound inputs of one workflow. followed: (node, input, value) of inputs that are linked to a constant."""

    def __init__(self, nodes: Mapping[str, dict[str, Any]], plans: Mapping[str, NodePlan], findings: Findings) -> None:
        self.nodes = nodes
        self.plans = plans
        self.findings = findings
        self.followed: list[tuple[str, str, Any]] = []

    def check_node(self, node_id: str) -> bool:
        """All that lines bind of a node; whether that is permitted, and remembered for the next one."""
        plan, before = self.plans[node_id], len(self.findings.reasons)
        for item in plan.inputs.bound:
            self.check_input(node_id, item)
        for budget in plan.inputs.budgets:
            self.check_budget(node_id, budget, plan.inputs.specs)
        is_permitted = len(self.findings.reasons) == before
        if is_permitted:
            plan.remember(self.nodes[node_id]["inputs"])
        return is_permitted

    def check_input(self, node_id: str, item: BoundInput) -> None:
        """An input of the node itself, given or not."""
        name = item.spec.name
        value = self.nodes[node_id]["inputs"].get(name, ABSENT)
        if value is ABSENT:
            if not item.spec.is_required:  # ComfyUI asks for the required ones itself
                allowed = "a value: the policy binds this input and its default is not known"
                self._add(node_id, name, "This input must be given.", Fault(NodeReason.INPUT_MISSING, None, allowed))
            return
        self.check_value(node_id, item, value)

    def check_value(self, node_id: str, item: BoundInput, value: Any) -> None:
        """A value under the name of `item`: of an input, or of a field in an object."""
        if type(value) is list:
            value = self._follow(node_id, item.spec.name, value)
        for constraint in item.constraints:
            fault = _find_link(value) if type(value) is list else constraint.find_fault(value, item.spec.type)
            if fault is not None:
                message = f"The policy does not permit this value (inputs.{constraint.key})."
                self._add(node_id, item.spec.name, message, fault)

    def check_budget(self, node_id: str, budget: BoundBudget, specs: Mapping[str, InputSpec]) -> None:
        """specs: of the factors' inputs at least."""
        values = []
        inputs = self.nodes[node_id]["inputs"]
        for name in budget.names:
            value = inputs.get(name, ABSENT)
            if type(value) is list:
                value = self._follow(node_id, name, value)
            fault: Fault | None
            if type(value) is list:
                fault = _find_link(value)
            elif value is ABSENT:
                if specs[name].is_required:
                    return
                fault = Fault(NodeReason.INPUT_MISSING, None, f"a value: the budget {budget.key} counts it")
            else:
                fault = check_type(value, "FLOAT") or check_type(value, specs[name].type)
            if fault is not None:
                self._add(node_id, name, f"The policy has a budget on this input (budgets.{budget.key}).", fault)
                return
            values.append(value)
        over = budget.find_fault(values)
        if over is not None:
            self._add(node_id, budget.names[0], f"This node is over a budget (budgets.{budget.key}).", over)

    def _follow(self, node_id: str, name: str, value: list[Any]) -> Any:
        """The value of the constant that a link leads to; a link that leads to anything else stays a link."""
        found = value
        for _ in range(MAX_FOLLOWED):
            node_plan = self.plans.get(found[0]) if is_link(found) else None
            plan = node_plan.of_class if node_plan is not None else None
            if plan is None or not plan.is_constant or plan.fixed is None:
                return value
            constant = self.nodes[found[0]]["inputs"].get("value")
            if type(constant) is not list:
                if check_type(constant, plan.fixed.specs["value"].type) is not None:
                    return value
                self.followed.append((node_id, name, constant))
                return constant
            found = constant
        return value

    def _add(self, node_id: str, name: str, message: str, fault: Fault) -> None:
        self.findings.add(node_id, self.nodes[node_id]["class_type"], name, message, fault)


def _find_link(value: list[Any]) -> Fault:
    found = f"a link, {shorten(value[0])}" if value else value
    return Fault(NodeReason.INPUT_LINKED, found, "a literal, or a link to a Primitive node")

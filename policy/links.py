"""The links of one workflow: where they lead, and which outputs can run when some lead nowhere. Trusts the nodes' shape."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

from policy.node_plan import NodePlan
from policy.outputs import BrokenLink, Runnable, find_runnable
from policy.violation import Reason, Violation
from policy.workflow import Fault, NodeReason, is_link

_ANY_OUTPUT: Final = 1 << 62


class Links:
    """faults: (node, input, what is wrong) of links that lead nowhere."""

    def __init__(
        self, nodes: Mapping[str, dict[str, Any]], plans: Mapping[str, NodePlan], refused: Container[str]
    ) -> None:
        """plans: of the nodes that are permitted. refused: ids of the others."""
        self._nodes = nodes
        self._plans = plans
        self._refused = refused
        self._broken: dict[str, list[BrokenLink]] = {}
        self.faults: list[tuple[str, str, Fault]] = []

    def lead_somewhere(self, value: Any) -> bool:
        """Whether a value is a link to an output that exists."""
        return is_link(value) and 0 <= value[1] < self._count_outputs(value[0])

    def _count_outputs(self, node_id: str) -> int:
        # Nothing is known of the outputs of a node that is refused: links to it are not judged, so no answer tells what exists.
        plan = self._plans.get(node_id)
        return len(plan.outputs) if plan is not None else _ANY_OUTPUT if node_id in self._refused else 0

    def keep_broken(self, node_id: str, name: str, value: list[Any]) -> None:
        """SECURITY: ComfyUI follows the links of all inputs (test_upstream_rule.py::test_what_passes_holds_the_rule)."""
        if type(value[1]) is not int:
            allowed = '["node id", output number]; a list as a value is {"__value__": […]}'
            fault = Fault(NodeReason.LINK_MALFORMED, value, allowed)
            words = "the second part of a link is the number of an output"
        elif value[0] not in self._plans and value[0] not in self._refused:
            fault = Fault(NodeReason.LINK_NODE_MISSING, value[0], "the id of a node of this workflow")
            words = f"this link leads to node {value[0][:80]!r}, which is not in the workflow"
        else:
            count = self._count_outputs(value[0])
            allowed = f"0 to {count - 1}" if count else "none: it has no outputs"
            fault = Fault(NodeReason.LINK_OUTPUT_MISSING, value[1], allowed)
            words = f"this link leads to output {value[1]} of node {value[0][:80]!r}, which has {count or 'none'}"
        self._broken.setdefault(node_id, []).append(BrokenLink(name, value, words))
        self.faults.append((node_id, name, fault))

    def find_runnable(self, tangled: frozenset[str], targets: tuple[str, ...] | None) -> Runnable:
        """tangled: nodes that need one another. targets: the outputs that were asked for, None for all.

        Raises Violation when outputs were asked for and none can run, as ComfyUI tells it.
        """
        if not self._broken and not tangled:
            return Runnable()
        outputs = [
            node_id
            for node_id, plan in self._plans.items()
            if plan.is_output and (targets is None or node_id in targets)
        ]
        sources = {node_id: self._list_targets(node_id) for node_id in self._plans}
        classes = {node_id: plan.class_type for node_id, plan in self._plans.items()}
        runnable = find_runnable(sources, outputs, self._broken, tangled, classes)
        if outputs and not runnable.has_outputs:
            errors = [error for entry in runnable.node_errors.values() for error in entry["errors"]]
            raise Violation(
                Reason.WORKFLOW_MALFORMED,
                "Prompt outputs failed validation",
                "\n".join(f"{error['message']}: {error['details']}" for error in errors[:20]),
                node_errors=runnable.node_errors,
                error_type="prompt_outputs_failed_validation",
            )
        return runnable

    def _list_targets(self, node_id: str) -> list[str]:
        """The nodes that a node links to."""
        inputs = self._nodes[node_id]["inputs"]
        return [inputs[name][0] for name in self._plans[node_id].links if self.lead_somewhere(inputs[name])]

"""Judges a submitted workflow: what comes out is rebuilt from judged parts, everything else is a Violation. Trusts the catalogue and the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from policy.catalogue import Catalogue, InputSpec
from policy.compiled import OPEN, Policy, compile_policy
from policy.constraints import BoundBudget, check_type
from policy.document import parse_json
from policy.graph import measure_depth
from policy.literals import WRAPPER, find_literal_fault, unwrap
from policy.pinned import find_differences
from policy.plan import BoundInput, ClassPlan, InputPlan
from policy.workflow import (
    Fault,
    Fields,
    Findings,
    NodeReason,
    find_bad_ids,
    hash_shape,
    read_fields,
    read_prompt,
    refuse,
    shorten,
)

__all__ = ["OPEN", "JudgedPrompt", "Policy", "compile_policy", "judge", "judge_document"]

MAX_FOLLOWED: Final = 100
_ANY_OUTPUT: Final = 1 << 62
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A workflow that may run, rebuilt: declared inputs only, no wrappers but for lists, every link to an output that exists.

    nodes: by id, each with class_type, inputs and, where the client gave one, _meta with its title. Owned by whoever gets it.
    extra_data: known keys of the right type; credentials of paid services only when a node asks for them.
    priority: within the tenant's own jobs, 0 when not given. targets of None mean all outputs.
    followed: (node, input, value) of constrained inputs that are linked to a constant.
    workflow_hash: by which like workflows are known: classes, links and what decides the cost, no seeds and no text.
    """

    nodes: dict[str, dict[str, Any]]
    client_id: str | None
    prompt_id: str | None
    extra_data: dict[str, Any]
    partial_execution_targets: tuple[str, ...] | None
    priority: float
    followed: tuple[tuple[str, str, Any], ...]
    workflow_hash: str


def judge(body: bytes, policy: Policy, catalogue: Catalogue) -> JudgedPrompt:
    """Judges the body of `POST /prompt`.

    Raises Violation and nothing else: body-malformed, workflow-malformed or policy-violation, the latter two with all offending nodes.
    """
    if policy.max_prompt_bytes is not None and len(body) > policy.max_prompt_bytes:
        refuse(
            NodeReason.PROMPT_TOO_LARGE,
            f"This policy takes workflows of at most {policy.max_prompt_bytes} bytes.",
            f"found {len(body)} bytes",
        )
    return judge_document(parse_json(body), policy, catalogue)


def judge_document(document: Any, policy: Policy, catalogue: Catalogue) -> JudgedPrompt:
    """Judges a parsed body. It takes the document over: parts of it become parts of the result."""
    prompt = read_prompt(document)
    if not catalogue.classes:
        refuse(NodeReason.CATALOGUE_UNKNOWN, "The gate does not know yet what ComfyUI can run. Try again in a moment.")
    if len(prompt) > policy.max_nodes:
        refuse(
            NodeReason.TOO_MANY_NODES,
            f"This policy takes workflows of at most {policy.max_nodes} nodes.",
            f"found {len(prompt)}",
        )
    judging = _Judging(policy, catalogue, prompt, Findings())
    judging.read_nodes()
    judging.judge_inputs()
    fields = read_fields(document, prompt, judging.findings)
    judging.findings.raise_if_any()
    if policy.pinned:
        find_differences(judging.nodes, policy.pinned, judging.specs_of, judging.findings)
        judging.findings.raise_if_any()
    return judging.finish(fields)


class _Judging:
    """One pass over one workflow."""

    def __init__(self, policy: Policy, catalogue: Catalogue, prompt: dict[str, Any], findings: Findings) -> None:
        self.policy = policy
        self.catalogue = catalogue
        self.prompt = prompt
        self.findings = findings
        self.nodes: dict[str, dict[str, Any]] = {}
        self.plans: dict[str, ClassPlan] = {}
        self.output_counts: dict[str, int] = {}
        self.shape: list[Any] = []
        self.followed: list[tuple[str, str, Any]] = []

    def read_nodes(self) -> None:
        """Shape and classes."""
        bad_ids = frozenset(find_bad_ids(self.prompt))
        for node_id in bad_ids:
            fault = Fault(NodeReason.NODE_ID_REFUSED, node_id, "1 to 64 of letters, digits, space and _.:#-")
            self.findings.add(node_id[:64], "", None, "This node id is not accepted.", fault)
        known, plans, counts, nodes = self.policy.plans_for(self.catalogue), self.plans, self.output_counts, self.nodes
        for node_id, node in self.prompt.items():
            if node_id in bad_ids:
                continue
            if (
                type(node) is dict
                and type(class_type := node.get("class_type")) is str
                and type(inputs := node.get("inputs")) is dict
            ):
                plan = known.get(class_type) or self.policy.plan_of(class_type, self.catalogue)
                if plan is not None:
                    plans[node_id] = plan
                    counts[node_id] = plan.output_count
                    nodes[node_id] = _rebuild_node(node, class_type, inputs)
                    continue
            # Nothing is known of the outputs of a node that is refused: links to it are not judged, so no answer tells what exists.
            counts[node_id] = _ANY_OUTPUT
            self._refuse_node(node_id, node)

    def _refuse_node(self, node_id: str, node: Any) -> None:
        add = self.findings.add
        if type(node) is not dict:
            fault = Fault(NodeReason.NODE_MALFORMED, node, "an object with class_type and inputs")
            add(node_id, "", None, "A node must be an object.", fault)
            return
        class_type = node.get("class_type")
        if type(class_type) is not str:
            fault = Fault(NodeReason.CLASS_TYPE_MALFORMED, class_type, "a string")
            add(node_id, "", None, "A node needs the name of its class in class_type.", fault)
            return
        inputs = node.get("inputs")
        if type(inputs) is not dict:
            # SECURITY: ComfyUI reads the inputs of every node of a graph (test_upstream_rule.py::test_what_breaks_the_rule_is_refused).
            fault = Fault(NodeReason.INPUTS_MISSING, inputs, "an object, {} when there are none")
            add(node_id, class_type[:200], None, "A node needs an object of inputs.", fault)
        if self.policy.plan_of(class_type, self.catalogue) is None:
            fault = Fault(NodeReason.CLASS_NOT_PERMITTED, class_type, "the classes that /object_info lists")
            add(node_id, class_type[:200], None, "This class is not permitted.", fault)

    def judge_inputs(self) -> None:
        """Links, literals, constraints and budgets of every permitted node; then depth and cycles."""
        sources: dict[str, list[str]] = {}
        depths: dict[str, int] = {}
        is_ordered = True
        bound: list[tuple[str, InputPlan]] = []
        for node_id, node in self.nodes.items():
            plan = self.plans[node_id]
            inputs = node["inputs"]
            input_plan = plan.fixed
            if input_plan is None:
                for name, _ in plan.choosers:
                    if type(choice := inputs.get(name)) is dict and WRAPPER in choice:
                        inputs[name] = unwrap(choice, False)
                input_plan = plan.inputs_for(inputs)
            self.shape.append(node["class_type"])
            targets = self._judge_values(node_id, node, input_plan)
            sources[node_id] = targets
            depth = 1
            for target in targets:
                below = depths.get(target, 0)
                if below >= depth:
                    depth = below + 1
                elif below == 0:
                    is_ordered = False
            depths[node_id] = depth
            if input_plan.bound or input_plan.budgets:
                bound.append((node_id, input_plan))
        # Where every node comes after those that it links to, as the web UI writes them, the depths are known by now.
        self._judge_depth(max(depths.values(), default=0) if is_ordered else None, sources)
        for node_id, input_plan in bound:
            for item in input_plan.bound:
                self._judge_bound(node_id, item)
            for budget in input_plan.budgets:
                self._judge_budget(node_id, budget, input_plan)

    def _judge_values(self, node_id: str, node: dict[str, Any], plan: InputPlan) -> list[str]:
        """Keeps the declared inputs of a node and returns the nodes that it links to."""
        inputs: dict[str, Any] = node["inputs"]
        accepts, counts, shape = plan.accepts, self.output_counts, self.shape
        targets: list[str] = []
        odd: list[str] = []
        undeclared: list[str] = []
        for name, value in inputs.items():
            kinds = accepts.get(name)
            kind = type(value)
            if kinds is None:
                undeclared.append(name)
            elif kind is list:
                if len(value) == 2:
                    target, index = value
                    if type(target) is str and type(index) is int and 0 <= index < counts.get(target, 0):
                        targets.append(target)
                        shape.append(value)
                        continue
                odd.append(name)
            elif kind is dict or kind not in kinds:
                odd.append(name)
        # SECURITY: ComfyUI validates declared inputs alone, and follows the links of all (test_upstream_rule.py::test_what_passes_holds_the_rule).
        for name in undeclared:
            del inputs[name]
        for name in odd:
            self._judge_odd(node_id, name, inputs, plan)
        for name in plan.cost:
            value = inputs.get(name)
            if type(value) is not list:
                shape.append(value)
        return targets

    def _judge_odd(self, node_id: str, name: str, inputs: dict[str, Any], plan: InputPlan) -> None:
        """What is no link to an output that exists and no literal of the declared kind."""
        value = inputs[name]
        if type(value) is list:
            self._add(node_id, name, "This link leads nowhere.", self._find_link_fault(value))
        else:
            if type(value) is dict and WRAPPER in value:
                value = unwrap(value, name in plan.lists)
                inputs[name] = value
            fault = find_literal_fault(value, plan.accepts[name], name in plan.lists)
            if fault is not None:
                self._add(node_id, name, "This value is not accepted here.", fault)

    def _find_link_fault(self, value: list[Any]) -> Fault:
        if not _is_link(value):
            return Fault(
                NodeReason.LINK_MALFORMED, value, '["node id", output number]; a list as a value is {"__value__": […]}'
            )
        if value[0] not in self.output_counts:
            return Fault(NodeReason.LINK_NODE_MISSING, value[0], "the id of a node of this workflow")
        count = self.output_counts[value[0]]
        return Fault(
            NodeReason.LINK_OUTPUT_MISSING, value[1], f"0 to {count - 1}" if count else "none: it has no outputs"
        )

    def _judge_depth(self, deepest: int | None, sources: dict[str, list[str]]) -> None:
        """Longest chain and cycles; deepest: the former when it is known, and then there are none of the latter."""
        cycle: list[str] = []
        if deepest is None:
            deepest, cycle = measure_depth(sources)
        if deepest > self.policy.max_depth:
            text = f"found a chain of {deepest} nodes, allowed are {self.policy.max_depth}"
            self.findings.add_general(NodeReason.GRAPH_TOO_DEEP, text)
        for index, node_id in enumerate(cycle):
            target = cycle[(index + 1) % len(cycle)]
            inputs = self.nodes[node_id]["inputs"]
            name = next(name for name, value in inputs.items() if type(value) is list and value[:1] == [target])
            fault = Fault(NodeReason.LINK_CYCLE, " -> ".join(cycle[:10]), "a graph without cycles")
            self._add(node_id, name, "This link closes a cycle.", fault)

    def _judge_bound(self, node_id: str, item: BoundInput) -> None:
        spec = item.spec
        name = spec.name
        value = self.nodes[node_id]["inputs"].get(name, _ABSENT)
        if type(value) is list:
            value = self._follow(node_id, name, value)
        if value is _ABSENT:
            if not spec.is_required:  # ComfyUI asks for the required ones itself
                fault = Fault(
                    NodeReason.INPUT_MISSING, None, "a value: the policy binds this input and its default is not known"
                )
                self._add(node_id, name, "This input must be given.", fault)
            return
        for constraint in item.constraints:
            fault_found = _find_link(value) if type(value) is list else constraint.find_fault(value, spec.type)
            if fault_found is not None:
                self._add(
                    node_id, name, f"The policy does not permit this value (inputs.{constraint.key}).", fault_found
                )

    def _judge_budget(self, node_id: str, budget: BoundBudget, plan: InputPlan) -> None:
        values = []
        inputs = self.nodes[node_id]["inputs"]
        for name in budget.names:
            value = inputs.get(name, _ABSENT)
            if type(value) is list:
                value = self._follow(node_id, name, value)
            fault: Fault | None
            if type(value) is list:
                fault = _find_link(value)
            elif value is _ABSENT:
                if plan.specs[name].is_required:
                    return
                fault = Fault(NodeReason.INPUT_MISSING, None, f"a value: the budget {budget.key} counts it")
            else:
                fault = check_type(value, "FLOAT") or check_type(value, plan.specs[name].type)
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
            plan = self.plans.get(found[0]) if _is_link(found) else None
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

    def specs_of(self, node_id: str) -> Mapping[str, InputSpec]:
        return self.plans[node_id].inputs_for(self.nodes[node_id]["inputs"]).specs

    def finish(self, fields: Fields) -> JudgedPrompt:
        extra = fields.extra_data
        if fields.credentials and any(plan.node_class.is_api_node for plan in self.plans.values()):
            extra = extra | fields.credentials
        return JudgedPrompt(
            nodes=self.nodes,
            client_id=fields.client_id,
            prompt_id=fields.prompt_id,
            extra_data=extra,
            partial_execution_targets=fields.targets,
            priority=fields.priority,
            followed=tuple(self.followed),
            workflow_hash=hash_shape(self.shape),
        )


def _rebuild_node(node: dict[str, Any], class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    meta = node.get("_meta")
    if type(meta) is not dict or type(meta.get("title")) is not str:
        return {"class_type": class_type, "inputs": inputs}
    if len(node) == 3 and len(meta) == 1:
        return node
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": meta["title"]}}


def _is_link(value: list[Any]) -> bool:
    return len(value) == 2 and type(value[0]) is str and type(value[1]) is int


def _find_link(value: list[Any]) -> Fault:
    found = f"a link, {shorten(value[0])}" if value else value
    return Fault(NodeReason.INPUT_LINKED, found, "a literal, or a link to a Primitive node")

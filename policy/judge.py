"""Judges a submitted workflow: what comes out is rebuilt from judged parts, everything else is a Violation. Trusts the catalogue and the operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policy.bound_checks import BoundChecks
from policy.catalogue import Catalogue
from policy.class_plan import ClassPlan, InputPlan
from policy.compiled_policy import ADMIN_POLICY, Policy, compile_policy
from policy.document import parse_json
from policy.graph import measure_depth
from policy.literals import WRAPPER, find_literal_fault, find_undeclared_fault, unwrap
from policy.outputs import BrokenLink, Runnable, find_runnable
from policy.pinned import find_differences
from policy.salt import SALT
from policy.undeclared import bind_budgets, bind_fields, bind_input, describe
from policy.violation import Reason, Violation
from policy.workflow import (
    Fault,
    Fields,
    Findings,
    NodeReason,
    Notice,
    find_bad_ids,
    hash_shape,
    read_fields,
    read_prompt,
    rebuild_node,
    refuse,
)

__all__ = ["ADMIN_POLICY", "JudgedPrompt", "Policy", "compile_policy", "judge", "judge_document"]

MAX_LISTED: Final = 20
_ANY_OUTPUT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A workflow that may run, rebuilt: no wrappers but for lists, every link to an output that exists, no cycles.

    nodes: by id, each with class_type, inputs and, where the client gave one, _meta with its title. Owned by whoever gets it.
    extra_data: of the right types; credentials of paid services only when a node asks for them.
    priority: within the tenant's own jobs, 0 when not given. targets of None mean all outputs.
    node_errors: outputs that cannot run, in ComfyUI's shape; their nodes are not among `nodes`.
    notices: what was left out, for the client.
    followed: (node, input, value) of constrained inputs that are linked to a constant.
    workflow_hash: by which like workflows are known: classes, links and what decides the cost, no seeds and no text.
    """

    nodes: dict[str, dict[str, Any]]
    client_id: str | None
    prompt_id: str | None
    extra_data: dict[str, Any]
    partial_execution_targets: tuple[str, ...] | None
    priority: float
    node_errors: Mapping[str, dict[str, Any]]
    notices: tuple[Notice, ...]
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
    fields = read_fields(document, judging.findings)
    judging.raise_if_any()
    if policy.pinned:
        find_differences(judging.nodes, policy.pinned, judging.findings)
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
        self.sources: dict[str, list[str]] = {}
        self.broken: dict[str, list[BrokenLink]] = {}
        self.broken_faults: list[tuple[str, str, Fault]] = []
        self.tangled: frozenset[str] = frozenset()
        self.not_installed: str | None = None
        self.stripped: list[str] = []
        self.shape: list[Any] = []
        self.checks = BoundChecks(self.nodes, self.plans, findings)

    def read_nodes(self) -> None:
        """Shape and classes."""
        bad_ids = frozenset(find_bad_ids(self.prompt))
        for node_id in bad_ids:
            fault = Fault(NodeReason.NODE_ID_REFUSED, node_id, "1 to 128 characters, no control characters")
            self.findings.add(node_id[:128], "", None, "This node id is not accepted.", fault)
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
                    nodes[node_id] = rebuilt = rebuild_node(node, class_type, inputs)
                    if rebuilt is not node:
                        self.stripped.append(node_id)
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
            if self.policy.permits(class_type):
                self.not_installed = self.not_installed or node_id
            fault = Fault(NodeReason.CLASS_NOT_PERMITTED, class_type, "the classes that /object_info lists")
            add(node_id, class_type[:200], None, "This class is not permitted.", fault)

    def judge_inputs(self) -> None:
        """Links, literals, constraints and budgets of every permitted node; then depth and cycles."""
        depths: dict[str, int] = {}
        is_ordered = True
        bound: list[tuple[str, InputPlan]] = []
        for node_id, node in self.nodes.items():
            plan = self.plans[node_id]
            inputs = node["inputs"]
            input_plan = plan.fixed
            if input_plan is None:
                for name, _ in plan.dynamic_inputs:
                    if type(choice := inputs.get(name)) is dict and WRAPPER in choice:
                        inputs[name] = unwrap(choice, False)
                input_plan = plan.inputs_for(inputs)
            self.shape.append(node["class_type"])
            targets = self._judge_values(node_id, inputs, input_plan)
            self.sources[node_id] = targets
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
        self._judge_depth(max(depths.values(), default=0) if is_ordered else None)
        for node_id, input_plan in bound:
            for item in input_plan.bound:
                self.checks.check_input(node_id, item)
            for budget in input_plan.budgets:
                self.checks.check_budget(node_id, budget, input_plan.specs)

    def _judge_values(self, node_id: str, inputs: dict[str, Any], plan: InputPlan) -> list[str]:
        """Judges the inputs of a node and returns the nodes that it links to."""
        specs, made, counts, shape = plan.specs, plan.made, self.output_counts, self.shape
        # A workflow out of a saved picture has it; the gate gives it anew.
        inputs.pop(SALT, None)
        targets: list[str] = []
        compound: list[str] = []
        undeclared: list[str] = []
        for name, value in inputs.items():
            kind = type(value)
            if name not in specs:
                undeclared.append(name)
            if kind is list:
                if len(value) == 2:
                    target, index = value
                    if type(target) is str and type(index) is int and 0 <= index < counts.get(target, 0):
                        targets.append(target)
                        shape.append(value)
                        continue
                compound.append(name)
            elif kind is dict or (kind is str and name in made):
                compound.append(name)
        for name in compound:
            self._judge_compound(node_id, name, inputs, plan)
        if undeclared:
            self._judge_undeclared(node_id, undeclared, inputs, plan)
        for name in plan.cost:
            value = inputs.get(name)
            if type(value) is not list:
                shape.append(value)
        return targets

    def _judge_compound(self, node_id: str, name: str, inputs: dict[str, Any], plan: InputPlan) -> None:
        """A list or an object that is no link to an output that exists, or a text where only a link makes sense."""
        value = inputs[name]
        if type(value) is list and len(value) == 2 and type(value[0]) is str and type(value[1]) in (int, float, bool):
            self._keep_broken(node_id, name, value)
            return
        fault: Fault | None = None
        if name in plan.made:
            fault = Fault(NodeReason.LITERAL_FOR_LINK, value, "a link to the output of a node")
        elif name not in plan.specs:
            fault = find_undeclared_fault(value)
        else:
            if type(value) is dict and WRAPPER in value:
                inputs[name] = value = unwrap(value, name in plan.lists)
            if type(value) is dict or type(value) is list:
                fault = find_literal_fault(value, name in plan.lists)
        if fault is not None:
            self._add(node_id, name, "This value is not accepted here.", fault)

    def _keep_broken(self, node_id: str, name: str, value: list[Any]) -> None:
        """SECURITY: ComfyUI follows the links of all inputs (test_upstream_rule.py::test_what_passes_holds_the_rule)."""
        if type(value[1]) is not int:
            allowed = '["node id", output number]; a list as a value is {"__value__": […]}'
            fault = Fault(NodeReason.LINK_MALFORMED, value, allowed)
            words = "the second part of a link is the number of an output"
        elif value[0] not in self.output_counts:
            fault = Fault(NodeReason.LINK_NODE_MISSING, value[0], "the id of a node of this workflow")
            words = f"this link leads to node {value[0][:80]!r}, which is not in the workflow"
        else:
            count = self.output_counts[value[0]]
            allowed = f"0 to {count - 1}" if count else "none: it has no outputs"
            fault = Fault(NodeReason.LINK_OUTPUT_MISSING, value[1], allowed)
            words = f"this link leads to output {value[1]} of node {value[0][:80]!r}, which has {count or 'none'}"
        self.broken.setdefault(node_id, []).append(BrokenLink(name, value, words))
        self.broken_faults.append((node_id, name, fault))

    def _judge_undeclared(self, node_id: str, names: list[str], inputs: dict[str, Any], plan: InputPlan) -> None:
        if not self.policy.keeps_undeclared:
            for name in names:
                fault = Fault(NodeReason.INPUT_UNDECLARED, name, "the inputs that /object_info declares")
                self._add(node_id, name, "The policy takes declared inputs only (undeclared).", fault)
            return
        class_plan = self.plans[node_id]
        if class_plan.constraints:
            known = class_plan.undeclared
            for name in names:
                item = known[name] if name in known else bind_input(class_plan, name)
                if item is not None:
                    self.checks.check_input(node_id, item)
                if type(value := inputs[name]) is dict:
                    for field, found in bind_fields(class_plan, name, value):
                        self.checks.check_value(node_id, field, found)
        for budget in bind_budgets(class_plan, plan.specs, names):
            self.checks.check_budget(node_id, budget, {**plan.specs, **describe(names)})

    def _judge_depth(self, deepest: int | None) -> None:
        """Longest chain and cycles; deepest: the former when it is known, and then there are none of the latter."""
        if deepest is None:
            deepest, self.tangled = measure_depth(self.sources)
        if deepest > self.policy.max_depth:
            text = f"found a chain of {deepest} nodes, allowed are {self.policy.max_depth}"
            self.findings.add_general(NodeReason.GRAPH_TOO_DEEP, text)

    def _add(self, node_id: str, name: str, message: str, fault: Fault) -> None:
        self.findings.add(node_id, self.nodes[node_id]["class_type"], name, message, fault)

    def raise_if_any(self) -> None:
        """Raises Violation for what the policy does not permit, and for what has no meaning."""
        if not self.findings.reasons:
            return
        if self.not_installed is not None and {*self.findings.reasons} == {NodeReason.CLASS_NOT_PERMITTED}:
            self._raise_not_installed(self.not_installed)
        for node_id, name, fault in self.broken_faults:
            self._add(node_id, name, "This link leads nowhere.", fault)
        self.findings.raise_if_any()

    def _raise_not_installed(self, node_id: str) -> None:
        """In ComfyUI's words, unless another class is one that the policy refuses."""
        if any(
            node_id not in self.nodes and not self.policy.permits(node["class_type"])
            for node_id, node in self.prompt.items()
        ):
            return
        node = self.prompt[node_id]
        meta = node.get("_meta")
        title = meta.get("title") if type(meta) is dict else None
        title = title if type(title) is str else node["class_type"]
        raise Violation(
            Reason.WORKFLOW_MALFORMED,
            f"Node '{title[:200]}' not found. The custom node may not be installed.",
            f"Node ID '#{node_id}'",
            error_type="missing_node_type",
            extra_info={"node_id": node_id, "class_type": node["class_type"][:200], "node_title": title[:200]},
        )

    def finish(self, fields: Fields) -> JudgedPrompt:
        runnable = self._find_runnable(fields.targets)
        notices = [*fields.notices]
        if self.stripped:
            text = f"Of these nodes only class_type, inputs and _meta were kept: {_list_ids(self.stripped)}."
            notices.append(Notice("node-keys-left-out", text))
        if runnable.left_out:
            self.nodes = {node_id: node for node_id, node in self.nodes.items() if node_id not in runnable.left_out}
            if not self.nodes:
                raise Violation(Reason.WORKFLOW_MALFORMED, "Prompt has no outputs", error_type="prompt_no_outputs")
            text = f"Nodes that cannot run, or need one that cannot, were left out: {_list_ids(runnable.left_out)}."
            notices.append(Notice("nodes-left-out", text))
        extra = fields.extra_data
        if fields.credentials and any(self.plans[node_id].node_class.is_api_node for node_id in self.nodes):
            extra = extra | fields.credentials
        return JudgedPrompt(
            nodes=self.nodes,
            client_id=fields.client_id,
            prompt_id=fields.prompt_id,
            extra_data=extra,
            partial_execution_targets=_keep_known(fields.targets, self.nodes),
            priority=fields.priority,
            node_errors=runnable.node_errors,
            notices=tuple(notices),
            followed=tuple(self.checks.followed),
            workflow_hash=hash_shape(self.shape),
        )

    def _find_runnable(self, targets: tuple[str, ...] | None) -> Runnable:
        """Raises Violation when outputs were asked for and none can run, as ComfyUI tells it."""
        if not self.broken and not self.tangled:
            return Runnable()
        outputs = [
            node_id
            for node_id, plan in self.plans.items()
            if plan.node_class.is_output_node and (targets is None or node_id in targets)
        ]
        classes = {node_id: node["class_type"] for node_id, node in self.nodes.items()}
        runnable = find_runnable(self.sources, outputs, self.broken, self.tangled, classes)
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


def _keep_known(targets: tuple[str, ...] | None, nodes: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Those of the targets that are nodes: ComfyUI runs nothing for the others."""
    return None if targets is None else tuple(target for target in targets if target in nodes)


def _list_ids(node_ids: Iterable[str]) -> str:
    ids = sorted(node_ids)
    named = ", ".join(node_id[:40] for node_id in ids[:MAX_LISTED])
    return named if len(ids) <= MAX_LISTED else f"{named} and {len(ids) - MAX_LISTED} more"

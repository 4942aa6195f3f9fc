"""Judges a submitted workflow: what comes out is rebuilt from judged parts, everything else is a Violation. Trusts the catalogue and the operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from operator import itemgetter
from typing import Any, Final

from policy import values
from policy.bound_checks import BoundChecks
from policy.catalogue import Catalogue
from policy.class_plan import InputPlan
from policy.compiled_policy import ADMIN_POLICY, Policy, compile_policy
from policy.document import parse_json
from policy.graph import measure_depth
from policy.links import Links
from policy.literals import WRAPPER, find_literal_fault, find_undeclared_fault, unwrap
from policy.node_plan import NodePlan, plan_node
from policy.patience import ENDLESS, Patience
from policy.pinned import find_differences
from policy.salt import SALT
from policy.surely_valid import is_valid
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
_DEPTH_OF: Final = itemgetter(0)


@values.value
class JudgedPrompt:
    """A workflow that may run, rebuilt: no wrappers but for lists, every link to an output that exists, no cycles.

    nodes: by id, each with class_type, inputs and, where the client gave one, _meta with its title. Owned by whoever gets it.
    extra_data: of the right types; credentials of paid services only when a node asks for them.
    priority: within the tenant's own jobs, 0 when not given. targets of None mean all outputs.
    node_errors: outputs that cannot run, in ComfyUI's shape; their nodes are not among `nodes`.
    notices: what was left out, for the client.
    followed: (node, input, value) of constrained inputs that are linked to a constant.
    workflow_hash: by which like workflows are known: classes, links and what decides the cost, no seeds and no text.
    plans: of `nodes`, by id. unproven: those of which it is not certain yet that ComfyUI accepts them (policy/surely_valid.py).
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
    plans: Mapping[str, NodePlan] = field(default_factory=dict)
    unproven: tuple[str, ...] = ()


def judge(body: bytes, policy: Policy, catalogue: Catalogue, patience: Patience = ENDLESS) -> JudgedPrompt:
    """Judges the body of `POST /prompt`.

    Raises Violation: body-malformed, workflow-malformed or policy-violation, the latter two with all offending nodes; TooMuch, where there is an end
    to patience; and nothing else.
    """
    if policy.max_prompt_bytes is not None and len(body) > policy.max_prompt_bytes:
        refuse(
            NodeReason.PROMPT_TOO_LARGE,
            f"This policy takes workflows of at most {policy.max_prompt_bytes} bytes.",
            f"found {len(body)} bytes",
        )
    return judge_document(parse_json(body), policy, catalogue, patience)


def judge_document(document: Any, policy: Policy, catalogue: Catalogue, patience: Patience = ENDLESS) -> JudgedPrompt:
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
    judging = _Judging(policy, catalogue, prompt, Findings(), patience)
    judging.drop_bad_ids()
    judging.read_nodes()
    judging.judge_rest()
    fields = read_fields(document, judging.findings)
    judging.raise_if_any()
    if policy.pinned:
        find_differences(judging.nodes, policy.pinned, judging.findings)
        judging.findings.raise_if_any()
    return judging.finish(fields)


class _Judging:
    """One pass over one workflow, whose nodes are its own to change."""

    def __init__(
        self, policy: Policy, catalogue: Catalogue, nodes: dict[str, Any], findings: Findings, patience: Patience
    ) -> None:
        self.patience = patience
        self.policy = policy
        self.catalogue = catalogue
        self.nodes = nodes
        self.findings = findings
        self.plans: dict[str, NodePlan] = {}
        self.ends: dict[str, tuple[int, range]] = {}
        """Of nodes whose links are judged: the depth, and the numbers of their outputs."""
        self.refused: dict[str, None] = {}
        self.late: list[str] = []
        self.unproven: list[str] = []
        self.bound: list[str] = []
        self.links = Links(nodes, self.plans, self.refused)
        self.tangled: frozenset[str] = frozenset()
        self.not_installed: str | None = None
        self.stripped: list[str] = []
        self.shape: list[Any] = []
        self.checks = BoundChecks(self.nodes, self.plans, findings)

    def drop_bad_ids(self) -> None:
        """A link to such a node leads nowhere."""
        for node_id in find_bad_ids(self.nodes):
            fault = Fault(NodeReason.NODE_ID_REFUSED, node_id, "1 to 128 characters, no control characters")
            self.findings.add(node_id[:128], "", None, "This node id is not accepted.", fault)
            del self.nodes[node_id]

    def read_nodes(self) -> None:
        """Judges each node as far as it is ordinary: of a permitted class and known inputs, with links to nodes before it, and else literals."""
        known, plans, ends, shape = self.policy.plans_for(self.catalogue), self.plans, self.ends, self.shape
        for node_id, node in self.nodes.items():
            try:
                inputs = node["inputs"]
                plan = known[node["class_type"]].nodes[(*inputs, *map(type, inputs.values()))]
                if len(node) > 2 and (len(node) > 3 or type(node["_meta"]["title"]) is not str):
                    raise KeyError("other keys")
            except (KeyError, TypeError, AttributeError):  # whatever stands in the place of an object, a name or a plan
                if (found := self._read_node(node_id, node)) is None:
                    continue
                inputs, plan = found
            plans[node_id] = plan
            for pick, accepted in plan.checks:
                if pick(inputs) not in accepted:
                    self.bound.append(node_id)
                    break
            depth = 1
            try:
                for name in plan.links:
                    target, index = inputs[name]
                    below, outputs = ends[target]
                    if type(index) is not int or index not in outputs:
                        raise ValueError("no such output")
                    if below >= depth:
                        depth = below + 1
            except (ValueError, KeyError, TypeError):  # of other parts than two, to no node so far, to what names none
                self.late.append(node_id)
                continue
            ends[node_id] = (depth, plan.outputs)
            if not plan.is_usual:
                self.late.append(node_id)
                continue
            shape.append((plan.title, plan.pick(inputs)))
            if plan.proof is None or not is_valid(inputs, plan.proof, plans):
                self.unproven.append(node_id)

    def _read_node(self, node_id: str, node: Any) -> tuple[dict[str, Any], NodePlan] | None:
        """The inputs and the plan of a node that is not quite as others before it; None for one that is refused. Raises TooMuch."""
        if (
            type(node) is not dict
            or type(class_type := node.get("class_type")) is not str
            or type(inputs := node.get("inputs")) is not dict
            or (class_plan := self.policy.plan_of(class_type, self.catalogue)) is None
        ):
            self.refused[node_id] = None
            return None
        rebuilt = rebuild_node(node, class_type, inputs)
        if rebuilt is not node:
            self.nodes[node_id] = rebuilt
            self.stripped.append(node_id)
        inputs.pop(SALT, None)  # a workflow out of a saved picture has it; the gate gives it anew
        return inputs, plan_node(class_plan, inputs, self.patience)

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

    def judge_rest(self) -> None:
        """What is not ordinary, now that all nodes are known; then depth and cycles, and what lines bind."""
        for node_id in self.refused:
            self._refuse_node(node_id, self.nodes[node_id])
        sources: dict[str, list[str]] = {}
        for node_id in self.late:
            targets = self._judge_late(node_id)
            if node_id not in self.ends:
                sources[node_id] = targets
        self._judge_depth(sources)
        for node_id in self.bound:
            self.checks.check_node(node_id)

    def _judge_late(self, node_id: str) -> list[str]:
        """Judges the inputs of a node and returns the nodes that it links to."""
        plan, inputs = self.plans[node_id], self.nodes[node_id]["inputs"]
        targets: list[str] = []
        for name in plan.looked_at:
            self.patience.spend_on(inputs[name])
            if self.links.lead_somewhere(link := inputs[name]):
                targets.append(link[0])
            else:
                self._judge_compound(node_id, name, inputs, plan.inputs)
        if plan.undeclared:
            self.patience.spend(5 * len(plan.undeclared))
            self._judge_undeclared(node_id, plan.undeclared, inputs, plan)
        self.shape.append((plan.title, plan.pick(inputs)))
        return targets

    def _judge_compound(self, node_id: str, name: str, inputs: dict[str, Any], plan: InputPlan) -> None:
        """A list or an object that is no link to an output that exists, or a text where only a link makes sense."""
        value = inputs[name]
        if type(value) is list and len(value) == 2 and type(value[0]) is str and type(value[1]) in (int, float, bool):
            self.links.keep_broken(node_id, name, value)
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

    def _judge_undeclared(self, node_id: str, names: Iterable[str], inputs: dict[str, Any], plan: NodePlan) -> None:
        if not self.policy.keeps_undeclared:
            for name in names:
                fault = Fault(NodeReason.INPUT_UNDECLARED, name, "the inputs that /object_info declares")
                self._add(node_id, name, "The policy takes declared inputs only (undeclared).", fault)
            return
        class_plan, specs = plan.of_class, plan.inputs.specs
        if class_plan.constraints:
            known = class_plan.undeclared
            for name in names:
                item = known[name] if name in known else bind_input(class_plan, name)
                if item is not None:
                    self.checks.check_input(node_id, item)
                if type(value := inputs[name]) is dict:
                    for field, found in bind_fields(class_plan, name, value):
                        self.checks.check_value(node_id, field, found)
        for budget in bind_budgets(class_plan, specs, names):
            self.checks.check_budget(node_id, budget, {**specs, **describe(names)})

    def _judge_depth(self, sources: Mapping[str, list[str]]) -> None:
        """Longest chain and cycles. sources: of the nodes that do not come after all that they link to."""
        deepest = max(map(_DEPTH_OF, self.ends.values()), default=0)
        if sources:
            known = {node_id: depth for node_id, (depth, _) in self.ends.items()}
            deepest, self.tangled = measure_depth(sources, known)
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
        for node_id, name, fault in self.links.faults:
            self._add(node_id, name, "This link leads nowhere.", fault)
        self.findings.raise_if_any()

    def _raise_not_installed(self, node_id: str) -> None:
        """In ComfyUI's words, unless another class is one that the policy refuses."""
        if any(not self.policy.permits(self.nodes[node_id]["class_type"]) for node_id in self.refused):
            return
        node = self.nodes[node_id]
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
        runnable = self.links.find_runnable(self.tangled, fields.targets)
        notices = [*fields.notices]
        if self.stripped:
            text = f"Of these nodes only class_type, inputs and _meta were kept: {_list_ids(self.stripped)}."
            notices.append(Notice("node-keys-left-out", text))
        if runnable.left_out:
            self.nodes = {node_id: node for node_id, node in self.nodes.items() if node_id not in runnable.left_out}
            self.plans = {node_id: self.plans[node_id] for node_id in self.nodes}
            if not self.nodes:
                raise Violation(Reason.WORKFLOW_MALFORMED, "Prompt has no outputs", error_type="prompt_no_outputs")
            text = f"Nodes that cannot run, or need one that cannot, were left out: {_list_ids(runnable.left_out)}."
            notices.append(Notice("nodes-left-out", text))
        extra = fields.extra_data
        if fields.credentials and any(plan.of_class.node_class.is_api_node for plan in self.plans.values()):
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
            plans=self.plans,
            unproven=tuple(node_id for node_id in (*self.unproven, *self.late) if node_id in self.plans),
        )


def _keep_known(targets: tuple[str, ...] | None, nodes: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Those of the targets that are nodes: ComfyUI runs nothing for the others."""
    return None if targets is None else tuple(target for target in targets if target in nodes)


def _list_ids(node_ids: Iterable[str]) -> str:
    ids = sorted(node_ids)
    named = ", ".join(node_id[:40] for node_id in ids[:MAX_LISTED])
    return named if len(ids) <= MAX_LISTED else f"{named} and {len(ids) - MAX_LISTED} more"

"""A workflow that is judged and written as a whole, and what is kept of that for the next ones (policy/templates/template.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

import orjson

from policy.file_uses import FileUse
from policy.node_plan import NodePlan
from policy.patience import AT_ONCE_BYTES, AT_ONCE_EFFORT, Patience
from policy.prepared import Prepared, read_and_judge, write
from policy.rule_context import RuleContext, RuleInput
from policy.salt import SALT
from policy.surely_valid import NodeChecks, is_valid, needed_by
from policy.templates.template import Graph, HoledWorkflow, Live, Place, Template, is_plain, key_of
from policy.undeclared import bind_budgets
from policy.workflow_files import Original

_PREFIXES: Final = frozenset({FileUse.PREFIX, FileUse.PREFIX_NAME})
_DATE: Final = "%date:"
_OPENING: Final = b'{"prompt":{'
Fills = Mapping[str, tuple[tuple[str, str], ...]]
"""By node: its inputs that are filled, each with the parameter."""


def prepare_and_learn(
    workflow: HoledWorkflow, values: Mapping[str, Any], request: RuleInput, patience: Patience
) -> Prepared:
    """request: with the workflow with these values in it. Raises what `prepare` raises."""
    judged, left_out = read_and_judge(request, patience)
    is_plain = judged.nodes == workflow.filled(values)
    prepared = write(judged, request.context, patience, left_out)
    context = request.context
    key = key_of(context.names.tenant, context.policy, values)
    is_known, template = workflow.templates.find(key, context)
    if is_known:
        if template is not None:
            template.remember(values, prepared.wish)
        return prepared
    if is_plain and not context.policy.pinned:  # of which each node is compared with another
        made = _Learning(workflow, values, judged.nodes, judged.plans, prepared, request)
        template = made.template()
    workflow.templates.keep(key, context, template)
    return prepared


class _Learning:
    """One workflow with its values. nodes: as ComfyUI gets them. plans: of all of them."""

    def __init__(
        self,
        workflow: HoledWorkflow,
        values: Mapping[str, Any],
        nodes: Mapping[str, dict[str, Any]],
        plans: Mapping[str, NodePlan],
        prepared: Prepared,
        request: RuleInput,
    ) -> None:
        self._graph: Graph = workflow.graph
        self._values = values
        self._nodes = nodes
        self._plans = plans
        self._prepared = prepared
        self._request = request
        self._context: RuleContext = request.context
        fills: dict[str, list[tuple[str, str]]] = {}
        for name in values:
            for node_id, input_name in workflow.places[name]:
                fills.setdefault(node_id, []).append((input_name, name))
        self._fills: Fills = {node_id: tuple(filled) for node_id, filled in fills.items()}

    def template(self) -> Template | None:
        """None where more than the live nodes may depend on the values, where something was left out, where it reads previews, and where its own
        nodes save into the folder of a ComfyUI (policy/rules/dispatch.py)."""
        if not self._prepared.body.startswith(_OPENING[:-1] + orjson.dumps(self._nodes)) or not all(
            self._is_apart(node_id, plan) for node_id, plan in self._plans.items()
        ):
            return None
        live = {node_id: plan for node_id, plan in self._plans.items() if self._is_live(node_id, plan)}
        needed = needed_by(self._prepared.outputs, self._nodes)
        counts = Counter(filling for _, filling in self._places())
        filled_bytes = sum(len(orjson.dumps(value)) * counts[name] for name, value in self._values.items())
        most, pieces = self._context.policy.max_prompt_bytes, tuple(self._pieces(live))
        template = Template(
            graph=self._graph,
            plans=self._plans,
            live=tuple(self._live(node_id, plan, is_needed=node_id in needed) for node_id, plan in live.items()),
            pieces=pieces,
            writes={node_id: plan for node_id, plan in live.items() if self._may_name_files(plan)},
            originals=self._originals(live),
            counts=tuple((name, counts[name]) for name in self._values),
            fixed_bytes=len(self._request.raw) - filled_bytes,
            max_bytes=AT_ONCE_BYTES if most is None else min(AT_ONCE_BYTES, most),
            costs=tuple(dict.fromkeys(name for place, name in self._places() if self._is_cost(*place))),
            written=self._written() if any(plan.needs_ancestor for plan in self._plans.values()) else None,
            outputs=tuple(self._prepared.outputs),
            labels=self._context.labels,
            may_be_sure=self._is_alike()
            and bool(needed)
            and all(self._may_be_sure(node_id, is_live=node_id in live) for node_id in needed),
            is_plain=all(map(is_plain, pieces)),
        )
        template.remember(self._values, self._prepared.wish)
        filled = template.fill(self._values, self._request, Patience(AT_ONCE_EFFORT))
        return template if filled == self._prepared else None

    def _places(self) -> Iterator[tuple[Place, str]]:
        for node_id, filled in self._fills.items():
            for input_name, name in filled:
                yield (node_id, input_name), name

    def _is_apart(self, node_id: str, plan: NodePlan) -> bool:
        """Whether no other node is judged by what fills this one, but for live ones; nor its own inputs that its class does not declare."""
        if node_id in self._fills:
            chooses = [name for name, _ in plan.of_class.dynamic_inputs]
            if any(name not in plan.inputs.specs or name in chooses for name, _ in self._fills[node_id]):
                return False
        if not plan.undeclared:
            return True
        inputs = self._nodes[node_id]["inputs"]
        is_bound = bool(plan.of_class.constraints) and any(
            type(inputs[name]) in (list, dict) for name in plan.undeclared
        )
        return not is_bound and not bind_budgets(plan.of_class, plan.inputs.specs, plan.undeclared)

    def _is_live(self, node_id: str, plan: NodePlan) -> bool:
        """Whether it depends on values, or on links to others that do, on the time, or on which files there are."""
        if node_id in self._fills or plan.class_type in self._context.id_inputs:
            return True
        if any(isinstance(accepted, tuple) for _, accepted in plan.checks):  # nothing is remembered of it
            return True
        inputs = self._graph[node_id]["inputs"]
        return not all(_is_constant(inputs[name], plan.inputs.uses.get(name)) for name in plan.files)

    def _live(self, node_id: str, plan: NodePlan, *, is_needed: bool) -> Live:
        is_salted = SALT in self._nodes[node_id]["inputs"]
        sure = self._sure_of(node_id, plan, is_changing=True) if plan.sure is not None and is_needed else None
        return Live(node_id, plan, self._fills.get(node_id, ()), is_salted, sure)

    def _sure_of(self, node_id: str, plan: NodePlan, *, is_changing: bool) -> NodeChecks:
        """Of a live node, what is to be looked at with each call; or what is the same with all values, as where its links lead is."""
        assert plan.sure is not None
        ranges, choices, links, others = plan.sure
        changing = {name for name, _ in self._fills.get(node_id, ())}
        changing = changing.union(plan.files, self._context.id_inputs.get(plan.class_type, ()))
        return NodeChecks(
            tuple(check for check in ranges if (check[0] in changing) is is_changing),
            tuple(check for check in choices if (check[0] in changing) is is_changing),
            () if is_changing else links,
            tuple(check for check in others if (check.name in changing) is is_changing),
        )

    def _may_be_sure(self, node_id: str, *, is_live: bool) -> bool:
        plan = self._plans[node_id]
        sure = plan.sure if plan.sure is None or not is_live else self._sure_of(node_id, plan, is_changing=False)
        return sure is not None and is_valid(self._nodes[node_id]["inputs"], sure, self._plans)

    def _is_alike(self) -> bool:
        """Whether its classes are the same at every ComfyUI."""
        return self._context.catalogue.differing.isdisjoint(self._prepared.wish.classes)

    def _is_cost(self, node_id: str, input_name: str) -> bool:
        return input_name in self._plans[node_id].inputs.cost

    def _may_name_files(self, plan: NodePlan) -> bool:
        return bool(plan.files) or plan.class_type in self._context.id_inputs

    def _originals(self, live: Container[str]) -> dict[str, tuple[Original, ...]]:
        """By node, of all that may have some; those of live ones come with a call."""
        by_node: dict[str, list[Original]] = {}
        for node_id, name, value in orjson.loads(self._prepared.originals):
            by_node.setdefault(node_id, []).append((node_id, name, value))
        return {
            node_id: () if node_id in live else tuple(by_node.get(node_id, ()))
            for node_id, plan in self._plans.items()
            if self._may_name_files(plan)
        }

    def _written(self) -> frozenset[str]:
        return frozenset(node_id for node_id, _, _ in orjson.loads(self._prepared.originals))

    def _pieces(self, live: Container[str]) -> Iterator[bytes]:
        piece = bytearray(_OPENING)
        for number, (node_id, node) in enumerate(self._nodes.items()):
            piece += (b"," if number else b"") + orjson.dumps(node_id) + b":"
            if node_id in live:
                yield bytes(piece)
                piece.clear()
            else:
                piece += orjson.dumps(node)
        # Its nodes end with the same brace as they do in the body.
        written = len(_OPENING) - 1 + len(orjson.dumps(self._nodes)) - 1
        yield bytes(piece) + self._prepared.body[written:]


def _is_constant(written: Any, use: FileUse | None) -> bool:
    """Whether a name becomes the same at all times: what files begin with does, where it has no dates."""
    return use in _PREFIXES and type(written) is str and _DATE not in written

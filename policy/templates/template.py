"""A workflow as it was judged and written once, with holes where values go: of the same with other values only what depends on them is judged and written.

Functions are called with other values (policy/functions/), and so are workflows that a tenant sends again (policy/templates/recurring.py).

SECURITY: what comes out is what judging and writing the whole workflow makes (tests/policy/templates/test_template.py). Where that is not certain,
and where something is to be refused, nothing comes out, and the whole workflow is judged (policy/templates/learning.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final
from weakref import ref

import orjson

from policy.bound_checks import BoundChecks
from policy.call import ClaimJob
from policy.catalogue import Catalogue
from policy.compiled_policy import Policy
from policy.document import holds
from policy.keyform import has_key_form
from policy.needs import Needs
from policy.node_plan import NodePlan
from policy.patience import Patience, TooMuch
from policy.prepared import Prepared
from policy.principal import TenantId
from policy.rule_context import RuleContext, RuleInput
from policy.rules.dispatch import at_first
from policy.salt import SALT
from policy.surely_valid import NodeChecks, is_valid
from policy.violation import Violation
from policy.workflow import Findings, Notice
from policy.workflow_files import IN_TEMP, Original, write_names
from policy.workflow_needs import find_needs

MAX_WISHES: Final = 16
"""Of a template. What clients give decides how many there are, so when there are more it begins anew."""
MAX_BYTES: Final = 1024**2
"""Of one workflow's templates, about; likewise."""
_BYTES_OF_TEMPLATE: Final = 4096
_LONGEST_NUMBER: Final = 25
_LONGEST_COST: Final = 256
_COST_DIGEST_BYTES: Final = 32
_AND_ITS_PLANS: Final = 2
Graph = Mapping[str, Mapping[str, Any]]
Place = tuple[str, str]
"""A node and one of its inputs."""


@dataclass(frozen=True, slots=True)
class Live:
    """A node that is judged and written anew with each call. fills: its inputs, with the parameter that goes into each. is_salted: see policy/salt.py.

    sure: what is to be looked at before ComfyUI is certain to accept the workflow, None for nothing (policy/surely_valid.py).
    """

    node_id: str
    plan: NodePlan
    fills: tuple[tuple[str, str], ...]
    is_salted: bool
    sure: NodeChecks | None


@dataclass(frozen=True, slots=True)
class Template:
    """For the same parameters, each of the same type.

    graph: with any values in it. pieces: of the body, before each live node and at the end. writes: plans of live nodes that may name files. originals: of
    all nodes that do, in the order of the workflow, empty for a live one. counts: by parameter, how many inputs it fills. fixed_bytes: of the document
    without what fills them, which has at most max_bytes with it. costs: parameters that the time of a job depends on. wishes: by their values.
    written: which nodes name files of the tenant's, where it decides which others are salted; else None. labels: of the ComfyUI that runs it.
    may_be_sure: whether ComfyUI is certain to accept what is not live. is_plain: of all pieces; what is looked for stands in one
    text of a document, and so in one piece or in one node.
    """

    graph: Graph
    plans: Mapping[str, NodePlan]
    live: tuple[Live, ...]
    pieces: tuple[bytes, ...]
    writes: Mapping[str, NodePlan]
    originals: Mapping[str, tuple[Original, ...]]
    counts: tuple[tuple[str, int], ...]
    fixed_bytes: int
    max_bytes: int
    costs: tuple[str, ...]
    written: frozenset[str] | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    may_be_sure: bool
    is_plain: bool
    _wishes: dict[bytes, ClaimJob] = field(default_factory=dict)

    def fill(self, values: Mapping[str, Any], request: RuleInput, patience: Patience) -> Prepared | None:
        """What `prepare` makes of the workflow with these values, None where only that can tell."""
        wish = self._wishes.get(self._cost_of(values))
        if wish is None or not self._has_room(values, request):
            return None
        nodes = self._filled(values)
        if not self._is_permitted(nodes):
            return None
        made: list[Original] = []
        if self.writes:
            try:
                made = write_names(nodes, self.writes, request.context, patience)
            except (Violation, TooMuch):
                return None
        originals = self._in_order(made)
        if self.written is not None and self.written != {node_id for node_id, _, _ in originals}:
            return None
        needs = None
        if request.context.is_placed:
            try:
                needs = self._needs(nodes, request.context, patience)
            except TooMuch:
                return None
        return self._written(nodes, orjson.dumps(originals), request, wish, needs)

    def remember(self, values: Mapping[str, Any], wish: ClaimJob) -> None:
        """wish: of the workflow with these values."""
        if len(self._wishes) >= MAX_WISHES:
            self._wishes.clear()
        self._wishes[self._cost_of(values)] = wish

    def _cost_of(self, values: Mapping[str, Any]) -> bytes:
        if not self.costs:
            return b""
        written = orjson.dumps([values[name] for name in self.costs])
        # SECURITY: the name of a model is as long as its client likes (test_template_memory.py::test_long_values_that_cost_are_not_kept).
        return written if len(written) <= _LONGEST_COST else blake2b(written, digest_size=_COST_DIGEST_BYTES).digest()

    def _has_room(self, values: Mapping[str, Any], request: RuleInput) -> bool:
        """Whether the document is of a size that is taken, and judged at once."""
        size = self.fixed_bytes
        for name, count in self.counts:
            size += (len(orjson.dumps(value)) if type(value := values[name]) is str else _LONGEST_NUMBER) * count
        return size <= self.max_bytes and size <= request.max_parts

    def _filled(self, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """All nodes, of which the live ones are to be written."""
        nodes: dict[str, Any] = {**self.graph}
        for live in self.live:
            node = nodes[live.node_id]
            inputs = {**node["inputs"]}
            for name, parameter in live.fills:
                inputs[name] = values[parameter]
            nodes[live.node_id] = {**node, "inputs": inputs}
        return nodes

    def _is_permitted(self, nodes: dict[str, dict[str, Any]]) -> bool:
        """By the lines of the policy, as policy/judge.py asks."""
        for live in self.live:
            inputs = nodes[live.node_id]["inputs"]
            for pick, accepted in live.plan.checks:
                if pick(inputs) not in accepted:
                    if not BoundChecks(nodes, self.plans, Findings()).check_node(live.node_id):
                        return False
                    break
        return True

    def _in_order(self, made: Sequence[Original]) -> list[Original]:
        """With those of nodes that are not live, in the order of the workflow."""
        every: Mapping[str, Sequence[Original]] = self.originals
        if made:
            by_node: dict[str, list[Original]] = {}
            for original in made:
                by_node.setdefault(original[0], []).append(original)
            every = {node_id: known or by_node.get(node_id, ()) for node_id, known in every.items()}
        return [original for known in every.values() for original in known]

    def _needs(self, nodes: Mapping[str, Any], context: RuleContext, patience: Patience) -> Needs:
        """Of what nodes that are not live name, that files begin with, none needs the name. Raises TooMuch."""
        context = replace(context, labels=self.labels)
        return find_needs(nodes, self.plans, self.outputs, context, patience)

    def _written(
        self,
        nodes: dict[str, dict[str, Any]],
        originals: bytes,
        request: RuleInput,
        wish: ClaimJob,
        found: Needs | None,
    ) -> Prepared | None:
        tenant, is_sure = request.context.names.tenant, self.may_be_sure
        parts, anew = [self.pieces[0]], []
        for live, piece in zip(self.live, self.pieces[1:], strict=True):
            inputs = nodes[live.node_id]["inputs"]
            if live.is_salted:
                inputs[SALT] = tenant
            if is_sure and live.sure is not None:
                is_sure = is_valid(inputs, live.sure, self.plans)
            anew.append(written := orjson.dumps(nodes[live.node_id]))
            parts += (written, piece)
        body, needs, credentials = b"".join(parts), b"", request.credentials
        moved: tuple[Notice, ...] = ()
        unknown = b"".join(anew)
        if found is not None:
            (body, moved), needs = at_first(body, found), found.to_bytes()
            unknown = body
        if not self.is_plain or not is_plain(unknown) or credentials.is_itself_in_json(body):
            return None
        if credentials.stands_in_json(originals):
            return None
        wish = wish if wish.needs == needs else replace(wish, needs=needs)
        return Prepared(body, originals, wish, list(self.outputs), {}, moved, (), is_sure, needs=needs)


def is_plain(body: bytes) -> bool:
    """Whether there is nothing with the form of a key in what ComfyUI is sent, and nothing that names a file of its temp folder."""
    return not holds(body, IN_TEMP) and not has_key_form(body)


class Templates:
    """Of one workflow. A policy's plans are of one catalogue, so templates are too.

    Neither is kept alive: a workflow may never come again, and each catalogue has megabytes (test_template_memory.py::test_what_is_replaced_is_let_go).
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._known: dict[tuple[Any, ...], tuple[ref[Catalogue], Mapping[str, frozenset[str]], Template | None]] = {}
        self._bytes = 0

    def find(self, key: tuple[Any, ...], context: RuleContext) -> tuple[bool, Template | None]:
        """Whether it is known what becomes of such calls; and their template, None where they have none."""
        known = self._known.get(key)
        if known is None:
            return False, None
        catalogue, id_inputs, template = known
        if catalogue() is context.catalogue and id_inputs is context.id_inputs:
            return True, template
        return False, None

    def keep(self, key: tuple[Any, ...], context: RuleContext, template: Template | None) -> None:
        size = size_of(0 if template is None else sum(map(len, template.pieces)))
        if self._bytes + size > self._max_bytes:
            self._known, self._bytes = {}, 0
        self._known[key] = (ref(context.catalogue), context.id_inputs, template)
        self._bytes += size


def size_of(body_bytes: int) -> int:
    """How many bytes a template of such a body takes, about."""
    return _BYTES_OF_TEMPLATE + _AND_ITS_PLANS * body_bytes


@dataclass(frozen=True, slots=True)
class HoledWorkflow:
    """graph: with any values in it. places: by parameter, each with the inputs that its value goes into."""

    graph: Graph
    places: Mapping[str, tuple[Place, ...]]
    templates: Templates = field(default_factory=Templates)

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """With these values. The graph stays as it is; nodes without a value of these are its own ones, to be read only."""
        inputs: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            for node_id, input_name in self.places[name]:
                if node_id not in inputs:
                    inputs[node_id] = dict(self.graph[node_id]["inputs"])
                inputs[node_id][input_name] = value
        return {
            **self.graph,
            **{node_id: {**self.graph[node_id], "inputs": given} for node_id, given in inputs.items()},
        }


def key_of(tenant: TenantId, policy: Policy, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of calls that have one template: a tenant's, judged by this policy, with values of the same types."""
    return (tenant, ref(policy), *values, *map(type, values.values()))

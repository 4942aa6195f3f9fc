"""What there is to do about a node, worked out once for all nodes of a class whose inputs have the same names and kinds: most values are never looked at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from types import NoneType
from typing import Any, Final

from policy.class_plan import ClassPlan, InputPlan
from policy.literals import WRAPPER, unwrap
from policy.patience import ENDLESS, Patience
from policy.salt import is_core, takes_salt
from policy.surely_valid import NodeChecks, narrow_checks

MAX_PLANS: Final = 200
"""Of a class. Clients decide which there are, so when there are more it begins anew."""
MAX_NAMED: Final = 4096
"""Characters in the names of a node's inputs: a plan of more is not remembered."""
MAX_ACCEPTED: Final = 100
MAX_ACCEPTED_LENGTH: Final = 200

_LITERALS: Final = frozenset({str, int, float, bool, NoneType})
_TEXTS: Final = frozenset({str, list, dict})
Check = tuple[Callable[[Any], Any], Container[Any]]
"""Picks what a line of the policy judges out of the inputs of a node, and what of that is known to be permitted.

SECURITY: remembered by kind, so that true is not taken for 1 (test_node_plan.py::test_what_was_permitted_is_remembered_by_its_kind).
"""
_ALWAYS: Final[Check] = (len, ())
"""Nothing is remembered where a value is a link, an object or missing."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """links: names of inputs with lists. looked_at: these, and those with objects, and with texts where only a link makes sense; in the node's order.

    outputs: their numbers. is_usual: whether links and lines are all there is to judge. title, pick: what like workflows have alike of such nodes:
    the class and names of inputs, and the values of these, which are links and what decides the cost. checks: what lines bind.
    files: names of inputs whose values may have to be written in the tenant's names. is_salted, needs_ancestor: see policy/salt.py.
    makes: the types of its outputs. sure: see policy/surely_valid.py.
    proof: the same where it holds in whatever names ComfyUI gets, else None.
    """

    class_type: str
    of_class: ClassPlan
    inputs: InputPlan
    outputs: range
    is_output: bool
    links: tuple[str, ...]
    looked_at: tuple[str, ...]
    undeclared: tuple[str, ...]
    is_usual: bool
    title: str
    pick: Callable[[Mapping[str, Any]], Any]
    checks: tuple[Check, ...]
    files: tuple[str, ...]
    is_salted: bool
    needs_ancestor: bool
    makes: tuple[Any, ...]
    sure: NodeChecks | None
    proof: NodeChecks | None

    def remember(self, inputs: Mapping[str, Any]) -> None:
        """These values were judged, and nothing is wrong with them."""
        for pick, accepted in self.checks:
            if isinstance(accepted, set) and len(accepted) < MAX_ACCEPTED:
                value = pick(inputs)
                if type(value) is not str or len(value) <= MAX_ACCEPTED_LENGTH:
                    accepted.add(value)


def plan_node(class_plan: ClassPlan, inputs: dict[str, Any], patience: Patience = ENDLESS) -> NodePlan:
    """The plan for a node with these inputs. What decides which inputs there are comes out of its wrapper first. Raises TooMuch."""
    patience.spend(10 + 2 * len(inputs))
    for name, _ in class_plan.dynamic_inputs:
        if type(choice := inputs.get(name)) is dict and WRAPPER in choice:
            inputs[name] = unwrap(choice, False)
    known = class_plan.nodes
    key = (*inputs, *map(type, inputs.values()), *class_plan.choice_of(inputs))
    plan = known.get(key)
    if plan is None:
        plan = _make(class_plan, class_plan.inputs_for(inputs), {name: type(value) for name, value in inputs.items()})
        if sum(map(len, inputs)) <= MAX_NAMED:
            if len(known) >= MAX_PLANS:
                known.clear()
            known[key] = plan
    return plan


def _make(class_plan: ClassPlan, plan: InputPlan, kinds: Mapping[str, type]) -> NodePlan:
    links = tuple(name for name, kind in kinds.items() if kind is list)
    looked_at = tuple(
        name for name, kind in kinds.items() if kind is list or kind is dict or (kind is str and name in plan.made)
    )
    undeclared = tuple(name for name in kinds if name not in plan.specs)
    shown = (*links, *(name for name in plan.cost if name in kinds and name not in links))
    is_salted = plan.needs_salt and takes_salt(class_plan.node_class)
    files = tuple(name for name, kind in kinds.items() if _may_name_files(class_plan, plan, name, kind))
    return NodePlan(
        class_type=class_plan.node_class.name,
        of_class=class_plan,
        inputs=plan,
        outputs=range(class_plan.output_count),
        is_output=class_plan.node_class.is_output_node,
        links=links,
        looked_at=looked_at,
        undeclared=undeclared,
        is_usual=not undeclared and links == looked_at,
        title=f"{class_plan.node_class.name} {' '.join(shown)}",
        pick=itemgetter(*shown) if shown else _pick_nothing,
        checks=tuple(_list_checks(plan, kinds)),
        files=files,
        is_salted=is_salted,
        needs_ancestor=plan.needs_salt and not is_salted,
        makes=tuple(class_plan.node_class.outputs),
        sure=(sure := narrow_checks(plan.sure, kinds, files)),
        proof=None if sure is None or sure.others else sure,
    )


def _pick_nothing(inputs: Mapping[str, Any]) -> None:
    return None


def _list_checks(plan: InputPlan, kinds: Mapping[str, type]) -> Iterable[Check]:
    for item in plan.bound:
        name = item.spec.name
        if name in kinds:
            yield (itemgetter(name), set()) if kinds[name] in _LITERALS else _ALWAYS
        elif not item.spec.is_required:  # ComfyUI asks for the required ones itself
            yield _ALWAYS
    for budget in plan.budgets:
        is_plain = all(kinds.get(name) in _LITERALS for name in budget.names)
        yield (itemgetter(*budget.names), set()) if is_plain else _ALWAYS


def _may_name_files(class_plan: ClassPlan, plan: InputPlan, name: str, kind: type) -> bool:
    if name in plan.uses:
        return True
    return kind in _TEXTS and (name not in plan.specs or not is_core(class_plan.node_class))

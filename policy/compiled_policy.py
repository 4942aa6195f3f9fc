"""A policy compiled from what the operator wrote: lists into one look-up, chains of `extend` into one policy, plans by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import ref

from policy.catalogue import Catalogue
from policy.class_plan import ClassPlan, plan_class
from policy.constraints import Constraints, compile_constraints
from policy.name_patterns import NamePatterns, compile_patterns
from policy.pinned import PinnedWorkflow, read_pinned
from policy.settings import HARD_MAX_DEPTH, HARD_MAX_NODES, Budget, InputConstraint, PolicySettings

MAX_REMEMBERED: Final = 10_000


class Policy:
    """A compiled policy. It remembers verdicts and plans by class, the plans as long as somebody has their catalogue: tenants may have different ones, where
    there are several ComfyUIs."""

    def __init__(
        self,
        name: str,
        *,
        allow: NamePatterns,
        deny: NamePatterns | None = None,
        constraints: Constraints | None = None,
        budgets: Mapping[str, Budget] | None = None,
        pinned: tuple[PinnedWorkflow, ...] = (),
        max_nodes: int,
        max_depth: int,
        max_prompt_bytes: int | None = None,
        keeps_undeclared: bool = True,
    ) -> None:
        self.name = name
        self.allow = allow
        self.deny = deny or NamePatterns(frozenset())
        self.constraints = constraints or Constraints({}, ())
        self.budgets: Mapping[str, Budget] = budgets or {}
        self.pinned = pinned
        self.max_nodes = max_nodes
        self.max_depth = max_depth
        self.max_prompt_bytes = max_prompt_bytes
        self.keeps_undeclared = keeps_undeclared
        self._verdicts: dict[str, bool] = {}
        self._plans: tuple[Catalogue | None, dict[str, ClassPlan]] = (None, {})
        self._all_plans: list[tuple[ref[Catalogue], dict[str, ClassPlan]]] = []

    def permits(self, class_type: str) -> bool:
        """Whether the class may run: listed by exact name, glob, preset or pinned workflow, and not denied."""
        verdict = self._verdicts.get(class_type)
        if verdict is None:
            verdict = self.allow.has(class_type) and not self.deny.has(class_type)
            if len(self._verdicts) < MAX_REMEMBERED:  # clients ask for names of their own
                self._verdicts[class_type] = verdict
        return verdict

    def plans_for(self, catalogue: Catalogue) -> dict[str, ClassPlan]:
        """The plans that were made for this catalogue so far."""
        known, plans = self._plans
        if known is not catalogue:
            plans = self._find_plans(catalogue)
            self._plans = (catalogue, plans)
        return plans

    def _find_plans(self, catalogue: Catalogue) -> dict[str, ClassPlan]:
        kept = [each for each in self._all_plans if each[0]() is not None]
        plans = next((plans for known, plans in kept if known() is catalogue), None)
        if plans is None:
            plans = {}
            kept.append((ref(catalogue), plans))
        self._all_plans = kept
        return plans

    def plan_of(self, class_type: str, catalogue: Catalogue) -> ClassPlan | None:
        """What to ask of a node of this class; None when it is unknown or not permitted, which nobody can tell apart."""
        plans = self.plans_for(catalogue)
        if class_type in plans:
            return plans[class_type]
        node_class = catalogue.get(class_type)
        if node_class is None or not self.permits(class_type):
            return None
        plan = plans[class_type] = plan_class(node_class, self.constraints, self.budgets)
        return plan


ADMIN_POLICY: Final = Policy("open", allow=compile_patterns(["*"]), max_nodes=HARD_MAX_NODES, max_depth=HARD_MAX_DEPTH)
"""For admins: every class and value, and every check that protects ComfyUI itself."""


def compile_policy(
    name: str,
    settings: Mapping[str, PolicySettings],
    presets: Mapping[str, frozenset[str]],
    pinned_documents: Mapping[str, Any],
) -> Policy:
    """The policy `name` with everything that it extends: lists are joined, what both say of one input or number the extending one decides.

    pinned_documents: the parsed workflows by the name in `workflows`. Raises ValueError for what has no meaning.
    """
    chain = list_chain(name, settings)
    inputs: dict[str, InputConstraint] = {}
    budgets: dict[str, Budget] = {}
    for link in reversed(chain):
        inputs.update(link.inputs)
        budgets.update(link.budgets)
    try:
        pinned = tuple(read_pinned(pin, pinned_documents) for link in chain for pin in link.workflows)
        listed = [*(entry for link in chain for entry in link.allow)]
        allow = compile_patterns(listed, presets)
        allow = NamePatterns(allow.exact.union(*(pin.classes for pin in pinned)), allow.pattern)
        return Policy(
            name,
            allow=allow,
            deny=compile_patterns([entry for link in chain for entry in link.deny], presets),
            constraints=compile_constraints(inputs),
            budgets=budgets,
            pinned=pinned,
            max_nodes=_first_given(chain, "max_nodes"),
            max_depth=_first_given(chain, "max_depth"),
            max_prompt_bytes=_first_given(chain, "max_prompt_bytes"),
            keeps_undeclared=_first_given(chain, "undeclared") == "keep",
        )
    except ValueError as error:
        raise ValueError(f"policies.{name}: {error}") from None


def list_chain(name: str, settings: Mapping[str, PolicySettings]) -> list[PolicySettings]:
    """The policy, what it extends, and so on. Raises ValueError for an unknown name and for a cycle."""
    chain: dict[str, PolicySettings] = {}
    asking, wanted = name, name
    while True:
        if wanted in chain:
            raise ValueError(
                f"policies.{asking}.extend: {wanted!r} comes back to itself: {' -> '.join(chain)} -> {wanted}"
            )
        if wanted not in settings:
            raise ValueError(f"policies.{asking}: there is no policy {wanted!r}")
        chain[wanted] = settings[wanted]
        following = settings[wanted].extend
        if following is None:
            return list(chain.values())
        asking, wanted = wanted, following


def _first_given(chain: list[PolicySettings], field_name: str) -> Any:
    for link in chain:
        if field_name in link.model_fields_set:
            return getattr(link, field_name)
    return getattr(chain[0], field_name)

"""Inputs that /object_info does not declare. ComfyUI hands an undeclared link to every class, and an undeclared literal to classes whose
inputs claim every name (execution.py, get_input_data), so the policy binds them as it binds declared ones. Trusts nothing of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policy.catalogue import InputSpec
from policy.class_plan import BoundInput, ClassPlan
from policy.constraints import BoundBudget, bind_budget

MAX_REMEMBERED: Final = 1000
"""Names by class: they are the client's own."""


def bind_input(plan: ClassPlan, name: str) -> BoundInput | None:
    """An undeclared input with the lines that bind it by its name, None when there are none. Remembered in `plan.undeclared`."""
    known = plan.undeclared
    lines = plan.constraints.of(plan.node_class.name, name)
    bound = BoundInput(InputSpec(name, "*", None, {}, False), lines) if lines else None
    if len(known) < MAX_REMEMBERED:
        known[name] = bound
    return bound


def bind_fields(plan: ClassPlan, name: str, value: Mapping[str, Any]) -> list[tuple[BoundInput, Any]]:
    """The fields of an object that lines bind, as `*.lora` binds `lora_1: {"lora": …}`, each with its value."""
    found = []
    known = plan.undeclared
    for key, item in value.items():
        path = f"{name}.{key}"
        bound = known[path] if path in known else bind_input(plan, path)
        if bound is not None:
            found.append((bound, item))
        if type(item) is dict:
            found += bind_fields(plan, path, item)
    return found


def bind_budgets(plan: ClassPlan, declared: Iterable[str], undeclared: Iterable[str]) -> list[BoundBudget]:
    """The budgets that count an undeclared input of a node."""
    names = {name for name in undeclared if name.rpartition(".")[2] in plan.factors}
    if not names:
        return []
    everything = {*declared, *undeclared}
    return [
        bound
        for key, budget in plan.budgets.items()
        for bound in bind_budget(key, budget, everything)
        if not names.isdisjoint(bound.names)
    ]


def describe(undeclared: Iterable[str]) -> Mapping[str, InputSpec]:
    """Specs of inputs of which nothing is known."""
    return {name: InputSpec(name, "*", None, {}, False) for name in undeclared}

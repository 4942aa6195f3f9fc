"""A policy, a limit and a key as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from policy.principal import Principal
from policy.settings import Budget, InputConstraint, PolicySettings

_RULES: Final[Mapping[str, str]] = {
    "min": "at least {}",
    "max": "at most {}",
    "multiple_of": "a multiple of {}",
    "allow": "one of {}",
    "deny": "not {}",
    "max_length": "at most {} characters",
    "const": "{} and nothing else",
}
_LIMITS: Final[Mapping[str, str]] = {
    "requests": "requests",
    "prompts": "workflows submitted",
    "uploads": "files uploaded",
    "upload-bytes": "bytes uploaded",
    "queued-jobs": "jobs waiting or running",
    "running-jobs": "jobs running",
    "websockets": "live connections",
    "polls": "questions after own jobs",
    "web-ui-files": "files of the web UI",
}
_SCOPES: Final[Mapping[str, str]] = {
    "jobs:submit": "run workflows",
    "jobs:read": "see jobs",
    "files:read": "see files",
    "files:write": "upload and save files",
    "catalog:read": "see models and nodes",
}


def policy_in_words(policy: PolicySettings, principal: Principal, presets: Mapping[str, str]) -> list[str]:
    """Sentences. presets: what each preset is, by its name."""
    if principal.is_admin:
        return ["An admin may run every workflow and use every route of ComfyUI."]
    words = []
    if policy.extend:
        words.append(f"Everything that the policy {policy.extend} says, and:")
    named = [entry for entry in policy.allow if not entry.startswith("@")]
    described = [entry for entry in policy.allow if entry.startswith("@")]
    words += [f"May run {_described(entry, presets)}." for entry in described]
    if named or not (described or policy.workflows or policy.extend):
        words.append(f"May run: {', '.join(named) or 'nothing'}.")
    denied = [_described(entry, presets) if entry.startswith("@") else entry for entry in policy.deny]
    if denied:
        words.append(f"Never: {', '.join(denied)}.")
    words.append(f"At most {policy.max_nodes} nodes in a workflow.")
    words += [_constraint(name, constraint) for name, constraint in policy.inputs.items()]
    words += [_budget(budget) for budget in policy.budgets.values()]
    if policy.workflows:
        words.append(f"Only these workflows: {', '.join(pin.file for pin in policy.workflows)}.")
    return words


def limit_in_words(name: str) -> str:
    """ "prompts-per-minute" as what is counted: the window stands in the limit's size."""
    return _LIMITS.get(name.partition("-per-")[0], name.replace("-", " "))


def size_in_words(size: str) -> str:
    """ "30/minute; 500/day" as "30 a minute; 500 a day"."""
    return re.sub(r"\s*/\s*(?:1 )?(\d*)\s*", lambda found: f" in {found[1]} " if found[1] else " a ", size)


def scopes_in_words(scopes: tuple[str, ...]) -> str:
    return ", ".join(_SCOPES.get(scope, scope) for scope in scopes)


def _described(entry: str, presets: Mapping[str, str]) -> str:
    what = presets.get(entry[1:], "")
    return f"{what} ({entry})" if what else entry


def _constraint(name: str, constraint: InputConstraint) -> str:
    class_name, _, input_name = name.rpartition(".")
    where = f"{input_name} of every node" if class_name == "*" else f"{input_name} of {class_name}"
    rules = constraint.model_dump(exclude_defaults=True)
    return f"{where}: {', '.join(_RULES[rule].format(_plain(value)) for rule, value in rules.items())}."


def _budget(budget: Budget) -> str:
    factors = " by ".join(factor.rstrip("?") for factor in budget.of.split("*"))
    return f"{factors} of a node: at most {_plain(budget.max)}."


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)

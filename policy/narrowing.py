"""Narrows ComfyUI's /object_info to what a policy permits, so that the web UI offers only what will run. Never changes ComfyUI's own document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policy.catalogue import AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT, NodeClass, expand_inputs
from policy.compiled_policy import Policy
from policy.constraints import Constraint

_SECTIONS = ("required", "optional")
_NUMERIC = frozenset({"INT", "FLOAT"})


def narrow_class(node_class: NodeClass, policy: Policy) -> Mapping[str, Any]:
    """ComfyUI's description of a permitted class, tightened. The document itself where nothing binds it."""
    sections = node_class.document["input"]
    narrowed = {
        section: {name: _narrow_input(node_class, name, spec, policy) for name, spec in declared.items()}
        for section in _SECTIONS
        if (declared := sections.get(section))
    }
    if all(narrowed[section][name] is spec for section in narrowed for name, spec in sections[section].items()):
        return node_class.document
    return {**node_class.document, "input": {**sections, **narrowed}}


def _narrow_input(node_class: NodeClass, name: str, spec: Any, policy: Policy) -> Any:
    """name: as a workflow writes it, with the prefixes of dynamic inputs."""
    if not isinstance(spec, list) or not spec:
        return spec
    kind = spec[0]
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    if kind == AUTOGROW:
        return _narrow_growing(node_class, name, spec, policy)
    lines = policy.constraints.of(node_class.name, name)
    tightened = options
    if kind in (DYNAMIC_COMBO, DYNAMIC_SLOT):
        tightened = _narrow_dynamic(node_class, name, options, policy, lines)
    elif isinstance(kind, list):
        kind = _keep_choices(kind, lines)
    elif kind == "COMBO" and isinstance(options.get("options"), list):
        tightened = _replace(options, "options", _keep_choices(options["options"], lines))
    elif kind in _NUMERIC:
        tightened = _tighten_number(options, lines)
    tightened = _fit_default(tightened, kind, lines)
    return spec if kind is spec[0] and tightened is options else [kind, tightened, *spec[2:]]


def _narrow_growing(node_class: NodeClass, name: str, spec: list[Any], policy: Policy) -> list[Any]:
    """A list that grows has one template for all its inputs: it is tightened where the same lines bind them all."""
    grown = [item for item in expand_inputs(node_class, {}) if item.startswith(f"{name}.")]
    lines = {policy.constraints.of(node_class.name, item) for item in grown}
    if len(lines) != 1 or not next(iter(lines)):
        return spec
    template = spec[1]["template"]
    inputs = _narrow_sections(node_class, lambda _: grown[0], template["input"], policy)
    return [spec[0], {**spec[1], "template": {**template, "input": inputs}}, *spec[2:]]


def _narrow_dynamic(
    node_class: NodeClass, name: str, options: dict[str, Any], policy: Policy, lines: tuple[Constraint, ...]
) -> dict[str, Any]:
    def name_inner(inner: str) -> str:
        return f"{name}.{inner}"

    changed = dict(options)
    if "inputs" in options:
        changed["inputs"] = _narrow_sections(node_class, name_inner, options["inputs"], policy)
    if isinstance(options.get("options"), list):
        changed["options"] = [
            {**option, "inputs": _narrow_sections(node_class, name_inner, option.get("inputs"), policy)}
            for option in options["options"]
            if isinstance(option, dict) and _is_permitted(option.get("key"), lines)
        ]
    return options if changed == options else changed


def _narrow_sections(node_class: NodeClass, name_inner: Callable[[str], str], sections: Any, policy: Policy) -> Any:
    """`{"required": {…}, "optional": {…}}` inside of a dynamic input."""
    if not isinstance(sections, dict):
        return sections
    return {
        section: {
            inner: _narrow_input(node_class, name_inner(inner), value, policy) for inner, value in declared.items()
        }
        if isinstance(declared, dict)
        else declared
        for section, declared in sections.items()
    }


def _keep_choices(choices: list[Any], lines: tuple[Constraint, ...]) -> list[Any]:
    kept = [choice for choice in choices if _is_permitted(choice, lines)]
    return choices if len(kept) == len(choices) else kept


def _is_permitted(value: Any, lines: Iterable[Constraint]) -> bool:
    return all(line.find_fault(value, "COMBO") is None for line in lines)


def _tighten_number(options: dict[str, Any], lines: tuple[Constraint, ...]) -> dict[str, Any]:
    lowest = [line.settings.min for line in lines if line.settings.min is not None]
    highest = [line.settings.max for line in lines if line.settings.max is not None]
    for line in lines:
        if line.allow is not None and line.allow.numbers:
            lowest.append(min(line.allow.numbers))
            highest.append(max(line.allow.numbers))
        step = line.settings.multiple_of
        if step is not None:
            options = _replace(options, "step", step)
    if lowest:
        options = _replace(options, "min", max([*lowest, *_number(options.get("min"))]))
    if highest:
        options = _replace(options, "max", min([*highest, *_number(options.get("max"))]))
    return options


def _number(value: Any) -> list[int | float]:
    return [value] if type(value) in (int, float) else []


def _fit_default(options: dict[str, Any], kind: Any, lines: tuple[Constraint, ...]) -> dict[str, Any]:
    """A default that would be refused is replaced by the nearest value that is not, or left out."""
    if not lines or "default" not in options or _fits(options["default"], kind, lines):
        return options
    choices = kind if isinstance(kind, list) else options.get("options")
    if isinstance(choices, list):
        near = [choice.get("key") if isinstance(choice, dict) else choice for choice in choices[:1]]
    else:
        near = [options.get("max"), options.get("min")]
    for value in near:
        if value is not None and _fits(value, kind, lines):
            return {**options, "default": value}
    return {key: value for key, value in options.items() if key != "default"}


def _fits(value: Any, kind: Any, lines: tuple[Constraint, ...]) -> bool:
    return all(line.find_fault(value, kind if isinstance(kind, str) else "COMBO") is None for line in lines)


def _replace(options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return options if options.get(key) is value or options.get(key) == value else {**options, key: value}

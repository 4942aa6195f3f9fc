"""Looks for mistakes in a policy that it would be judged by: names that match nothing, classes that reach further than they seem to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from policy.catalogue import Catalogue, InputSpec, NodeClass, expand_inputs, list_options
from policy.compiled_policy import Policy, compile_policy, list_chain
from policy.constraints import bind_budget
from policy.name_patterns import compile_patterns, is_glob
from policy.settings import PolicySettings

RISKY_INPUTS: Final = {
    "path": frozenset(
        {"path", "file_path", "filepath", "file", "folder", "directory", "dir", "folder_path", "output_path"}
    ),
    "url": frozenset({"url", "uri", "link", "webhook", "endpoint", "host", "base_url", "image_url"}),
    "code": frozenset(
        {"code", "script", "expression", "python", "command", "cmd", "shell", "fragment_shader", "regex"}
    ),
}
_MAX_NAMED = 5
_MAX_SINGLE = 2


class Code(StrEnum):
    """What `comfygate check` finds; docs/policy.md says what to do."""

    ALLOWS_NOTHING = "allows-nothing"
    CLASS_UNKNOWN = "class-unknown"
    GLOB_MATCHES_NOTHING = "glob-matches-nothing"
    CLASS_REPLACED = "class-replaced"
    CALLS_PAID_SERVICE = "calls-paid-service"
    TAKES_PATH = "takes-path"
    TAKES_URL = "takes-url"
    TAKES_CODE = "takes-code"
    CLASS_EXCLUDED = "class-excluded"
    PRESET_MEMBER_DENIED = "preset-member-denied"
    DENY_MATCHES_NOTHING = "deny-matches-nothing"
    INPUT_UNKNOWN = "input-unknown"
    INPUT_OF_REFUSED_CLASS = "input-of-refused-class"
    BUDGET_BINDS_NOTHING = "budget-binds-nothing"
    PINNED_CLASS_DENIED = "pinned-class-denied"


@dataclass(frozen=True, slots=True)
class Finding:
    """key: where in the configuration, as `policies.default.allow`. subject: the class that it is about, "" where it is about no single one."""

    code: Code
    key: str
    message: str
    subject: str = ""


def lint(
    policy_name: str,
    settings: Mapping[str, PolicySettings],
    presets: Mapping[str, frozenset[str]],
    catalogue: Catalogue,
    replacements: Mapping[str, Any],
    *,
    pinned_documents: Mapping[str, Any] | None = None,
    excluded: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What looks wrong in a policy, given what ComfyUI can run.

    replacements: the answer of /node_replacements. excluded: classes that the presets leave out, with reasons.
    Raises ValueError as compile_policy does.
    """
    policy = compile_policy(policy_name, settings, presets, pinned_documents or {})
    chain = list_chain(policy_name, settings)
    linting = _Linting(f"policies.{policy_name}", policy, chain, presets, catalogue)
    findings = [
        *linting.check_allowed(replacements),
        *linting.check_denied(),
        *linting.check_reach(excluded or {}),
        *linting.check_inputs(),
        *linting.check_budgets(),
        *linting.check_pinned(),
    ]
    return findings


@dataclass(frozen=True, slots=True)
class _Linting:
    key: str
    policy: Policy
    chain: list[PolicySettings]
    presets: Mapping[str, frozenset[str]]
    catalogue: Catalogue

    def check_allowed(self, replacements: Mapping[str, Any]) -> Iterator[Finding]:
        key = f"{self.key}.allow"
        entries = [entry for link in self.chain for entry in link.allow]
        if not entries and not self.policy.pinned:
            yield Finding(Code.ALLOWS_NOTHING, key, "Nothing is listed, so every workflow is refused.")
        for entry in entries:
            if entry.startswith("@") or entry in self.catalogue.classes:
                continue
            if is_glob(entry):
                if not any(compile_patterns([entry]).has(name) for name in self.catalogue.classes):
                    yield Finding(Code.GLOB_MATCHES_NOTHING, key, f"{entry!r} matches no class that ComfyUI has.")
            elif entry in replacements:
                new = _read_replacement(replacements[entry])
                text = f"ComfyUI replaces {entry!r} by {new!r}: allow that, and send it."
                yield Finding(Code.CLASS_REPLACED, key, text)
            else:
                text = f"ComfyUI has no class {entry!r}. Names match by case and space."
                yield Finding(Code.CLASS_UNKNOWN, key, text)

    def check_denied(self) -> Iterator[Finding]:
        key = f"{self.key}.deny"
        for entry in (entry for link in self.chain for entry in link.deny):
            if not entry.startswith("@") and not any(
                compile_patterns([entry]).has(name) for name in self.catalogue.classes
            ):
                yield Finding(Code.DENY_MATCHES_NOTHING, key, f"{entry!r} matches no class that ComfyUI has.")
        for entry in (entry for link in self.chain for entry in link.allow):
            if entry.startswith("@"):
                denied = sorted(name for name in self.presets[entry[1:]] if self.policy.deny.has(name))
                if denied:
                    text = f"{entry} has members that are denied, and denied they stay: {_name_some(denied)}."
                    yield Finding(Code.PRESET_MEMBER_DENIED, key, text)

    def check_reach(self, excluded: Mapping[str, str]) -> Iterator[Finding]:
        key = f"{self.key}.allow"
        known = frozenset[str]().union(*self.presets.values())
        for name, node_class in self.catalogue.classes.items():
            if not self.policy.permits(name):
                continue
            if name in excluded:
                yield Finding(Code.CLASS_EXCLUDED, key, f"{name!r} stands in no preset: {excluded[name]}.", name)
            if node_class.is_api_node:
                yield Finding(Code.CALLS_PAID_SERVICE, key, f"{name!r} calls a paid service over the network.", name)
            if name not in known:
                yield from _check_texts(key, node_class)

    def check_inputs(self) -> Iterator[Finding]:
        names = {name: node_class for name, node_class in self.catalogue.classes.items() if self.policy.permits(name)}
        every = {f"{name}.{item}" for name, node_class in names.items() for item in list_every_input(node_class)}
        refused = {
            f"{name}.{item}"
            for name, node_class in self.catalogue.classes.items()
            if name not in names
            for item in list_every_input(node_class)
        }
        for line in self.policy.constraints.exact:
            pattern = compile_patterns([line])
            if any(pattern.has(name) for name in every):
                continue
            key = f'{self.key}.inputs."{line}"'
            if any(pattern.has(name) for name in refused):
                yield Finding(Code.INPUT_OF_REFUSED_CLASS, key, "Only classes that are not permitted have this input.")
            else:
                yield Finding(Code.INPUT_UNKNOWN, key, "No class has this input, so the line constrains nothing.")

    def check_budgets(self) -> Iterator[Finding]:
        for name, budget in self.policy.budgets.items():
            if not any(
                bind_budget(name, budget, list_every_input(node_class))
                for class_name, node_class in self.catalogue.classes.items()
                if self.policy.permits(class_name)
            ):
                text = f"No permitted class has all of {budget.of}, so the budget binds nothing."
                yield Finding(Code.BUDGET_BINDS_NOTHING, f"{self.key}.budgets.{name}", text)

    def check_pinned(self) -> Iterator[Finding]:
        for pin in self.policy.pinned:
            denied = sorted(name for name in pin.classes if not self.policy.permits(name))
            if denied:
                text = f"{pin.file} cannot run: {_name_some(denied)} denied."
                yield Finding(Code.PINNED_CLASS_DENIED, f"{self.key}.workflows", text)
            unknown = sorted(name for name in pin.classes if name not in self.catalogue.classes)
            if unknown:
                text = f"{pin.file} cannot run: ComfyUI has no class {_name_some(unknown)}."
                yield Finding(Code.CLASS_UNKNOWN, f"{self.key}.workflows", text)


_OF_MANY: Final[Mapping[Code, str]] = {
    Code.CLASS_EXCLUDED: "{count} permitted classes stand in no preset, each for a reason (docs/presets.md): {names}.",
    Code.CALLS_PAID_SERVICE: "{count} permitted classes call paid services over the network: {names}.",
    Code.TAKES_PATH: "{count} permitted classes take a path as free text: {names}. Constrain the inputs or deny the classes.",
    Code.TAKES_URL: "{count} permitted classes take a URL as free text: {names}. Constrain the inputs or deny the classes.",
    Code.TAKES_CODE: "{count} permitted classes take code as free text: {names}. Constrain the inputs or deny the classes.",
}


def summarize(findings: list[Finding]) -> list[str]:
    """The findings as sentences, each with its place; what is said of many classes is said once, with some of their names."""
    groups: dict[tuple[str, Code], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.key, finding.code), []).append(finding)
    lines = []
    for (key, code), group in groups.items():
        names = sorted({finding.subject for finding in group})
        if code in _OF_MANY and len(names) > _MAX_SINGLE:
            lines.append(f"{key}: {_OF_MANY[code].format(count=len(names), names=_name_some(names))}")
        else:
            lines += [f"{key}: {finding.message}" for finding in group]
    return lines


def list_every_input(node_class: NodeClass) -> dict[str, InputSpec]:
    """All inputs that a class can have, whatever is chosen in its dynamic ones."""
    found: dict[str, InputSpec] = {}
    waiting: list[dict[str, Any]] = [{}]
    tried: set[tuple[str, Any]] = set()
    while waiting:
        given = waiting.pop()
        for name, spec in expand_inputs(node_class, given).items():
            found.setdefault(name, spec)
            for choice in [option["key"] for option in list_options(spec)] or [None]:
                if (name, choice) not in tried and spec.type.startswith("COMFY_DYNAMIC"):
                    tried.add((name, choice))
                    waiting.append({**given, name: choice})
    return found


def _check_texts(key: str, node_class: NodeClass) -> Iterator[Finding]:
    for name, spec in node_class.inputs.items():
        if spec.type != "STRING" or spec.options.get("forceInput"):
            continue
        words = name.lower()
        for code, risky in zip((Code.TAKES_PATH, Code.TAKES_URL, Code.TAKES_CODE), RISKY_INPUTS.values(), strict=True):
            if words in risky:
                kind = code.value.removeprefix("takes-")
                text = f"{node_class.name!r} takes a {kind} as free text in {name!r}: constrain it or deny the class."
                yield Finding(code, key, text, node_class.name)


def _read_replacement(entry: Any) -> str:
    first = entry[0] if isinstance(entry, list) and entry else {}
    return str(first.get("new_node_id", "another class")) if isinstance(first, dict) else "another class"


def _name_some(names: list[str]) -> str:
    text = ", ".join(names[:_MAX_NAMED])
    return text if len(names) <= _MAX_NAMED else f"{text} and {len(names) - _MAX_NAMED} more"

"""Workflows that run as they are: a policy lists them, and only the inputs that it names may be other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policy.settings import PinnedFile
from policy.workflow import Fault, Findings, NodeReason, is_ui_format, nodes_of, shorten

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class PinnedWorkflow:
    """A workflow in the API format. free: (node id, input) that a client may set to any literal."""

    file: str
    nodes: Mapping[str, Mapping[str, Any]]
    free: frozenset[tuple[str, str]]
    classes: frozenset[str]


def read_pinned(pin: PinnedFile, documents: Mapping[str, Any]) -> PinnedWorkflow:
    """Raises ValueError when the file was not read, is no workflow in the API format, or has no such input as is to be free."""
    if pin.file not in documents:
        raise ValueError(f"workflows: {pin.file} could not be read")
    document = documents[pin.file]
    if is_ui_format(document):
        raise ValueError(f"workflows: {pin.file} is in the web UI's save format: export it in the API format")
    document = nodes_of(document)
    if not isinstance(document, dict) or not document or not all(_is_node(node) for node in document.values()):
        raise ValueError(f"workflows: {pin.file} is not a workflow in the API format")
    free = frozenset(_split(name) for name in pin.free)
    for node_id, input_name in sorted(free):
        if input_name not in document.get(node_id, {}).get("inputs", {}):
            raise ValueError(f"workflows: {pin.file} has no input {node_id}.{input_name} to leave free")
    return PinnedWorkflow(pin.file, document, free, frozenset(node["class_type"] for node in document.values()))


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _split(name: str) -> tuple[str, str]:
    node_id, _, input_name = name.partition(".")
    return node_id, input_name


def find_differences(
    nodes: Mapping[str, Mapping[str, Any]],
    pinned: tuple[PinnedWorkflow, ...],
    findings: Findings,
) -> None:
    """Adds nothing when the judged graph equals a pinned one but for its free inputs, else how it differs from the nearest."""
    nearest = min((_compare(nodes, pin) for pin in pinned), key=lambda compared: len(compared.reasons))
    findings.reasons.extend(nearest.reasons)
    findings.general.extend(nearest.general)
    findings.node_errors.update(nearest.node_errors)


def _compare(nodes: Mapping[str, Mapping[str, Any]], pin: PinnedWorkflow) -> Findings:
    found = Findings()
    missing = [node_id for node_id in pin.nodes if node_id not in nodes]
    if missing:
        text = f"nodes {', '.join(missing[:10])} of {pin.file} are missing"
        found.add_general(NodeReason.WORKFLOW_NOT_PINNED, text)
    for node_id, node in nodes.items():
        other = pin.nodes.get(node_id)
        class_type = node["class_type"]
        if other is None or other["class_type"] != class_type:
            allowed = "no such node" if other is None else other["class_type"]
            fault = Fault(NodeReason.WORKFLOW_NOT_PINNED, class_type, f"{allowed}, as in {pin.file}")
            found.add(node_id, class_type, None, "This node is not in the workflow that may run.", fault)
            continue
        for name in dict.fromkeys([*node["inputs"], *other["inputs"]]):
            value = node["inputs"].get(name, _ABSENT)
            wanted = other["inputs"].get(name, _ABSENT)
            if is_same(value, wanted) or ((node_id, name) in pin.free and _is_literal(value)):
                continue
            allowed = "a literal" if (node_id, name) in pin.free else _show(wanted)
            fault = Fault(NodeReason.WORKFLOW_NOT_PINNED, _show(value), f"{allowed}, as in {pin.file}")
            found.add(node_id, class_type, name, "This input is pinned.", fault)
    return found


def _is_literal(value: Any) -> bool:
    return value is not _ABSENT and type(value) is not list


def _show(value: Any) -> str:
    return "nothing" if value is _ABSENT else shorten(value)


def is_same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 8 and 8.0 are one number, true and 1 are not one value."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)

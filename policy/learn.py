"""Writes a policy for workflows that are given, and says in words what became of one that was judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from policy.judge import JudgedPrompt
from policy.toml_text import quote
from policy.violation import Violation
from policy.workflow import is_ui_format, nodes_of


def learn(documents: Iterable[Any], permits: Callable[[str], bool] = lambda name: False) -> str:
    """An allow-list in TOML for these workflows in the API format, each as it is or under `prompt`.

    permits: which classes are permitted already; they stand in a comment.
    Raises ValueError for what is no such workflow.
    """
    count = 0
    uses: Counter[str] = Counter()
    largest = 0
    for document in documents:
        count += 1
        nodes = _read_nodes(document, count)
        largest = max(largest, len(nodes))
        uses.update({node["class_type"] for node in nodes.values()})
    lines = [f"# {len(uses)} classes of {count} workflows, the largest of {largest} nodes", "allow = ["]
    known = [name for name in sorted(uses) if permits(name)]
    lines += [f"    {quote(name)}," for name in sorted(uses) if name not in known]
    lines += [f"    # permitted already: {quote(name)}" for name in known]
    lines.append("]")
    return "\n".join(lines) + "\n"


def _read_nodes(document: Any, number: int) -> dict[str, dict[str, Any]]:
    if isinstance(document, dict) and is_ui_format(document.get("prompt", document)):
        raise ValueError(f"workflow {number} is in the web UI's save format: export it in the API format, Export (API)")
    nodes = nodes_of(document)
    if not isinstance(nodes, dict) or not nodes or not all(_has_class(node) for node in nodes.values()):
        raise ValueError(
            f"workflow {number} is not a workflow in the API format: export one from the web UI, Export (API)"
        )
    return nodes


def _has_class(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str)


def explain(outcome: JudgedPrompt | Violation) -> str:
    """What became of a workflow, for a person at a terminal: one line for each problem."""
    if isinstance(outcome, JudgedPrompt):
        lines = [f"permitted: {len(outcome.nodes)} nodes"]
        lines += [f"  node {node} {name}: linked to the constant {value!r}" for node, name, value in outcome.followed]
        return "\n".join(lines) + "\n"
    lines = [f"refused ({outcome.reason.value}): {outcome.message}"]
    if outcome.details:
        lines.append(f"  {outcome.details}")
    for node_id, entry in outcome.node_errors.items():
        for error in entry["errors"]:
            lines.append(f"  node {node_id} {entry['class_type']}: {error['type']}: {error['details']}")
    return "\n".join(lines) + "\n"

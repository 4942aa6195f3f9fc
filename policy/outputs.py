"""Which outputs of a workflow can run when some of its nodes cannot: ComfyUI runs the valid ones and names the others (execution.py, validate_prompt)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final

from policy.graph import find_cycle
from policy.values import value

MAX_NAMED: Final = 100
MAX_PATH_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """A link that ComfyUI must not get: to a node that is not there, or to an output that the node has not."""

    input_name: str
    value: list[Any]
    words: str


@value
class Runnable:
    """What of a workflow ComfyUI can be given.

    left_out: ids of nodes that are broken or need one that is. node_errors: in ComfyUI's shape, for outputs that cannot run.
    has_outputs: whether an output is left that was asked for.
    """

    left_out: Set[str] = frozenset()
    node_errors: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    has_outputs: bool = True


def find_runnable(
    sources: Mapping[str, Iterable[str]],
    outputs: Iterable[str],
    broken: Mapping[str, list[BrokenLink]],
    tangled: Set[str],
    classes: Mapping[str, str],
) -> Runnable:
    """Splits a workflow in which links of `broken` nodes lead nowhere, and `tangled` nodes need one another or need such nodes.

    sources: by node the nodes that it links to. outputs: the output nodes that were asked for. classes: by node. At most 100
    nodes are named.
    """
    users: dict[str, list[str]] = {}
    for node_id, targets in sources.items():
        for target in targets:
            users.setdefault(target, []).append(node_id)
    wanted = list(outputs)
    left_out = reach([*broken, *tangled], users)
    errors: dict[str, dict[str, Any]] = {}

    def name(node_id: str, found: list[dict[str, Any]]) -> None:
        spoiled = reach([node_id], users)
        if dependent := [output for output in wanted if output in spoiled]:
            errors[node_id] = {"errors": found, "dependent_outputs": dependent, "class_type": classes[node_id]}

    for cycle in _list_cycles(sources, tangled, users):
        for node_id in cycle[:MAX_NAMED]:
            name(node_id, [_cycle_error(node_id, cycle, classes)])
    for node_id, links in list(broken.items())[:MAX_NAMED]:
        name(node_id, [_link_error(link) for link in links[:MAX_NAMED]])
    return Runnable(left_out, errors, not left_out.issuperset(wanted))


def _list_cycles(
    sources: Mapping[str, Iterable[str]], tangled: Set[str], users: Mapping[str, list[str]]
) -> Iterable[list[str]]:
    """Cycles such that every tangled node is in one of them or needs one of them; at most 100."""
    rest = set(tangled)
    for _ in range(MAX_NAMED):
        if not rest:
            return
        cycle = find_cycle(sources, rest)
        yield cycle
        rest -= reach(cycle, users)


def reach(starts: Iterable[str], users: Mapping[str, Iterable[str]]) -> set[str]:
    """The nodes and all that need one of them."""
    waiting = list(starts)
    found = set(waiting)
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _link_error(link: BrokenLink) -> dict[str, Any]:
    """ComfyUI's type for a link to nowhere; its own words are those of a Python exception."""
    return {
        "type": "exception_during_validation",
        "message": "Exception when validating node",
        "details": f"{link.input_name}: {link.words}",
        "extra_info": {"input_name": link.input_name, "linked_node": link.value},
    }


def _cycle_error(node_id: str, cycle: list[str], classes: Mapping[str, str]) -> dict[str, Any]:
    path = " -> ".join(f"{member} ({classes[member]})" for member in [*cycle[:MAX_NAMED], cycle[0]])
    return {
        "type": "dependency_cycle",
        "message": "Dependency cycle detected",
        "details": path[:MAX_PATH_LENGTH],
        "extra_info": {"node_id": node_id, "cycle_nodes": cycle[:MAX_NAMED]},
    }

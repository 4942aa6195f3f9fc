"""Depth and cycles of a graph of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set


def measure_depth(sources: Mapping[str, Sequence[str]]) -> tuple[int, frozenset[str]]:
    """The number of nodes on the longest chain, and the tangled nodes: those in cycles, and those that need one of them.

    sources: for each node the nodes it links to; links to nodes that are not there are skipped. Takes linear time.
    """
    waiting = dict.fromkeys(sources, 0)
    users: dict[str, list[str]] = {node: [] for node in sources}
    for node, targets in sources.items():
        for target in targets:
            if target in users:
                users[target].append(node)
                waiting[node] += 1
    ready = [node for node, count in waiting.items() if count == 0]
    depths = dict.fromkeys(ready, 1)
    deepest = 1 if ready else 0
    for node in ready:
        depth = depths[node] + 1
        for user in users[node]:
            if depths.get(user, 0) < depth:
                depths[user] = depth
            waiting[user] -= 1
            if waiting[user] == 0:
                deepest = max(deepest, depths[user])
                ready.append(user)
    if len(ready) == len(sources):
        return deepest, frozenset()
    return deepest, frozenset(node for node, count in waiting.items() if count)


def find_cycle(sources: Mapping[str, Iterable[str]], tangled: Set[str]) -> list[str]:
    """The nodes of one cycle. Every tangled node links to another one, so a walk among them comes back to a node it has seen."""
    node = next(node for node in sources if node in tangled)
    path: dict[str, None] = {}
    while node not in path:
        path[node] = None
        node = next(target for target in sources[node] if target in tangled)
    steps = list(path)
    return steps[steps.index(node) :]

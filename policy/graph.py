"""Depth and cycles of a graph of nodes. Linear time, and no recursion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter


def measure_depth(
    sources: Mapping[str, Sequence[str]], known: Mapping[str, int] | None = None
) -> tuple[int, frozenset[str]]:
    """The number of nodes on the longest chain, and the tangled nodes: those in cycles, and those that need one of them.

    sources: for each node the nodes it links to; links to nodes that are not there are skipped. known: depths of other nodes.
    """
    depths = dict(known or {})
    tangled: set[str] = set()
    for start in sources:
        waiting = [start]
        opened: set[str] = set()
        while waiting:
            node = waiting[-1]
            if node in depths or node in tangled:
                waiting.pop()
                continue
            missing = [target for target in sources[node] if target not in depths and target in sources]
            if not missing:
                depths[node] = 1 + max((depths.get(target, 0) for target in sources[node]), default=0)
            elif (
                node in opened
            ):  # and all that it needs was looked at since: what is missing needs this node, or is tangled itself
                tangled.add(node)
            else:
                opened.add(node)
                waiting += missing
    return max(depths.values(), default=0), frozenset(tangled)


def find_cycle(sources: Mapping[str, Iterable[str]], tangled: Set[str]) -> list[str]:
    """The nodes of one cycle among the tangled ones, each with a link to the next; the first is the first of them in `sources`."""
    places = {node: place for place, node in enumerate(node for node in sources if node in tangled)}
    sorter = TopologicalSorter({node: [target for target in sources[node] if target in places] for node in places})
    try:
        sorter.prepare()
    except CycleError as error:
        # It names the first node twice, and before each node the one that it links to.
        cycle: list[str] = error.args[1][:0:-1]
        first = cycle.index(min(cycle, key=places.__getitem__))
        return cycle[first:] + cycle[:first]
    raise ValueError("none of these nodes is in a cycle")

"""Prompt graphs: links, the shared cache's keys, and the order of execution. Nothing is checked here: validation did that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Graph = dict[str, Any]


def is_link(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))
    )


def freeze(value: Any) -> Any:
    """A hashable twin of a JSON value, equal exactly when Python finds the values equal (so 1 == 1.0 == True)."""
    if isinstance(value, Mapping):
        return frozenset((key, freeze(inner)) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(freeze(inner) for inner in value)
    return value


class CacheKeys:
    """Keys of the execution cache: class, literal inputs and ancestors of a node, and nothing else.

    Undeclared literals count; node ids, clients and prompts do not. That is what makes the cache a shared one.
    """

    def __init__(self, graph: Graph, fingerprint: Callable[[str], Any], has_unique_id: Callable[[str], bool]) -> None:
        self._graph = graph
        self._fingerprint = fingerprint
        self._has_unique_id = has_unique_id

    def of(self, node_id: str) -> Any:
        ancestors: dict[str, int] = {}
        self._collect(node_id, ancestors)
        return freeze([self._signature(each, ancestors) for each in (node_id, *ancestors)])

    def _collect(self, node_id: str, ancestors: dict[str, int]) -> None:
        inputs = self._graph[node_id]["inputs"]
        for name in sorted(inputs):
            if is_link(inputs[name]) and inputs[name][0] not in ancestors:
                ancestors[inputs[name][0]] = len(ancestors)
                if inputs[name][0] in self._graph:
                    self._collect(inputs[name][0], ancestors)

    def _signature(self, node_id: str, ancestors: Mapping[str, int]) -> list[Any]:
        if node_id not in self._graph:
            return [float("nan")]
        node = self._graph[node_id]
        signature = [node["class_type"], self._fingerprint(node_id)]
        if self._has_unique_id(node["class_type"]):
            signature.append(node_id)
        for name, value in sorted(node["inputs"].items()):
            signature.append((name, ("ANCESTOR", ancestors[value[0]], value[1]) if is_link(value) else value))
        return signature


class Schedule:
    """Nodes still to run; links of lazy inputs count only once the node asks for them."""

    def __init__(
        self,
        graph: Graph,
        is_cached: Callable[[str], bool],
        is_output: Callable[[str], bool],
        is_lazy: Callable[[str, str], bool],
    ) -> None:
        self._graph = graph
        self._is_cached = is_cached
        self._is_output = is_output
        self._is_lazy = is_lazy
        self._waits_for: dict[str, set[str]] = {}

    def add(self, node_id: str) -> None:
        pending = [node_id]
        while pending:
            current = pending.pop()
            if current in self._waits_for:
                continue
            self._waits_for[current] = set()
            inputs = self._graph[current]["inputs"]
            for name, value in inputs.items():
                if is_link(value) and not self._is_lazy(current, name) and not self._is_cached(value[0]):
                    self._waits_for[current].add(value[0])
                    pending.append(value[0])

    def require(self, node_id: str, input_name: str) -> None:
        """Makes a lazy link of `node_id` a real one."""
        source = self._graph[node_id]["inputs"][input_name][0]
        if not self._is_cached(source):
            self.add(source)
            self._waits_for[node_id].add(source)

    def next(self) -> str | None:
        """A node that is ready: outputs first, then what feeds an output, then what feeds that. None when done."""
        if not self._waits_for:
            return None
        ready = [node_id for node_id, waits in self._waits_for.items() if not waits]
        if not ready:
            raise DependencyCycle(next(iter(self._waits_for)))
        for node_id in ready:
            if self._is_output(node_id):
                return node_id
        for depth in (1, 2):
            for node_id in ready:
                if self._feeds_output(node_id, depth):
                    return node_id
        return ready[0]

    def done(self, node_id: str) -> None:
        del self._waits_for[node_id]
        for waits in self._waits_for.values():
            waits.discard(node_id)

    def _feeds_output(self, node_id: str, depth: int) -> bool:
        fed = [each for each, waits in self._waits_for.items() if node_id in waits]
        if depth == 1:
            return any(self._is_output(each) for each in fed)
        return any(self._feeds_output(each, depth - 1) for each in fed)


class DependencyCycle(Exception):
    """Only lazy links can still make one here: validation catches the others."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Dependency cycle detected")
        self.node_id = node_id

"""How far a job is, from what ComfyUI tells of it while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policy.document import read_upstream_json
from policy.rules.events import PROGRESS_STATE
from policy.values import value
from policy.workflow import is_link

_DIGITS: Final = 4
_NO_NODES: Final[frozenset[str]] = frozenset()


@value
class Progress:
    """value: from 0 to 1. done, total: nodes. step, steps: of the node that runs."""

    value: float
    done: int
    total: int
    node: str | None = None
    node_class: str | None = None
    step: int | None = None
    steps: int | None = None

    def to_client(self) -> dict[str, Any]:
        """The contract's Progress."""
        return {
            "value": self.value,
            "nodes_done": self.done,
            "nodes_total": self.total,
            "current_node": self.node,
            "current_node_class": self.node_class,
            "step": self.step,
            "steps": self.steps,
            "message": None,
        }


class Plan:
    """What of a workflow runs. classes: by node, of those that lead to one of its outputs; empty where the workflow is not known."""

    __slots__ = ("_outputs", "_sources", "classes")

    def __init__(self, graph: Any, outputs: Iterable[str]) -> None:
        """graph: as ComfyUI was sent it. outputs: ids of the output nodes that run."""
        nodes = graph if isinstance(graph, Mapping) else {}
        self._sources = {node_id: _sources_of(node) for node_id, node in nodes.items()}
        self._outputs = tuple(output for output in outputs if output in self._sources)
        self.classes = {node_id: str(nodes[node_id].get("class_type")) for node_id in self._reach(_NO_NODES)}

    def left(self, cached: frozenset[str]) -> frozenset[str]:
        """The nodes that have to run when ComfyUI's cache answers these: what only they need does not run either."""
        return self._reach(cached)

    def _reach(self, cached: frozenset[str]) -> frozenset[str]:
        found: set[str] = set()
        waiting = list(self._outputs)
        while waiting:
            node_id = waiting.pop()
            if node_id in self._sources and node_id not in found and node_id not in cached:
                found.add(node_id)
                waiting += self._sources[node_id]
        return frozenset(found)


class Tracker:
    """How far one job is. What ComfyUI says most often is kept as it came, and read when somebody asks.

    What it answers never falls, also when the job is tried again.
    """

    __slots__ = ("_cached", "_executed", "_floor", "_frame", "_node", "_place", "_states")

    def __init__(self) -> None:
        self._floor = 0.0
        self.begin()

    def begin(self) -> None:
        """A run of it begins."""
        self._cached = _NO_NODES
        self._executed: dict[str, None] = {}  # a third of an empty set
        self._node: str | None = None
        self._place: str | None = None
        """The node that runs as the client knows it: of nodes that a node has made, that one."""
        self._frame: str | None = None
        self._states: Mapping[str, Any] = {}

    def keep(self, kind: str, frame: str) -> None:
        """The newest frame of a kind in `PROGRESS`; each tells the whole state."""
        if kind == PROGRESS_STATE:
            self._frame = frame

    def cached(self, nodes: frozenset[str]) -> None:
        self._cached = nodes

    def executing(self, node_id: Any, display_node: Any = None) -> None:
        self._node = node_id if isinstance(node_id, str) else None
        self._place = display_node if isinstance(display_node, str) else self._node

    def executed(self, node_id: str) -> None:
        self._executed[node_id] = None

    @property
    def node(self) -> str | None:
        """The node that runs."""
        return self._place

    def progress(self, plan: Plan) -> Progress | None:
        """None where the workflow is not known."""
        total = len(plan.classes)
        if not total:
            return None
        states = self._read()
        rest = plan.left(self._cached).difference(self._executed)
        running = {node_id: _state(states.get(node_id)) for node_id in rest}
        rest = frozenset(node_id for node_id in rest if running[node_id][0] != "finished")
        done = total - len(rest)
        share = sum(min(1.0, step / steps) for state, step, steps in running.values() if state == "running" and steps)
        self._floor = max(self._floor, min(1.0, round((done + share) / total, _DIGITS)))
        _, step, steps = _state(states.get(self._node or ""))
        shown = (int(step), int(steps)) if steps > 1 else (None, None)
        return Progress(self._floor, done, total, self._place, plan.classes.get(self._place or ""), *shown)

    def _read(self) -> Mapping[str, Any]:
        frame, self._frame = self._frame, None
        if frame is not None:
            message = read_upstream_json(frame)
            data = message.get("data") if isinstance(message, Mapping) else None
            nodes = data.get("nodes") if isinstance(data, Mapping) else None
            self._states = nodes if isinstance(nodes, Mapping) else {}
        return self._states


def finished(plan: Plan) -> Progress | None:
    """Of a job that has succeeded; None where the workflow is not known."""
    total = len(plan.classes)
    return Progress(1.0, total, total) if total else None


def _sources_of(node: Any) -> frozenset[str]:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    if not isinstance(inputs, Mapping):
        return _NO_NODES
    return frozenset(given[0] for given in inputs.values() if is_link(given))


def _state(state: Any) -> tuple[str, float, float]:
    """State, steps done, steps in all; zeros where ComfyUI, or a node that counts oddly, says nothing that can be used."""
    if not isinstance(state, Mapping):
        return "", 0.0, 0.0
    step, steps = (_number(state.get(name)) for name in ("value", "max"))
    return str(state.get("state")), min(step, steps), steps


def _number(found: Any) -> float:
    return float(found) if isinstance(found, int | float) and 0 < found < 1e9 else 0.0

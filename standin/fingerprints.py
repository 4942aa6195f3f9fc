"""What classes add to the key of the execution cache: their own look at files and the like, and whether they know their node's id."""

from __future__ import annotations

import logging
from typing import Any

from standin.catalogue import CATALOGUE
from standin.folders import Folders
from standin.graph import Graph, is_link
from standin.nodes import RUNNERS
from standin.nodes.runner import Runner
from standin.nodes.unavailable import Unavailable

logger = logging.getLogger(__name__)


class Fingerprints:
    """Of the nodes of one graph, each made once."""

    def __init__(self, graph: Graph, folders: Folders) -> None:
        self._graph = graph
        self._folders = folders
        self._prints: dict[str, Any] = {}

    def of(self, node_id: str) -> Any:
        """A class's own part of the cache key. A value that the client put into the node wins, as upstream."""
        if node_id not in self._prints:
            node = self._graph[node_id]
            runner = RUNNERS.get(node["class_type"], Unavailable)
            if not runner.has_fingerprint:
                self._prints[node_id] = False
            else:
                if "is_changed" not in node:
                    node["is_changed"] = self._make(node_id, runner)
                self._prints[node_id] = node["is_changed"]
        return self._prints[node_id]

    def _make(self, node_id: str, runner: type[Runner]) -> Any:
        spec = CATALOGUE[self._graph[node_id]["class_type"]]
        declared = {**spec.required, **spec.optional}
        inputs = self._graph[node_id]["inputs"]
        literals = {name: None if is_link(inputs[name]) else inputs[name] for name in inputs if name in declared}
        try:
            return [runner.fingerprint(self._folders, **literals)]
        except Exception as error:
            logger.warning("no fingerprint of node %s: %s", node_id, error)
            return float("nan")


def has_unique_id(class_type: str) -> bool:
    # ComfyUI looks for the plain string of old-style classes, and so misses new-style ones.
    spec = CATALOGUE[class_type]
    return "unique_id" in spec.hidden and not spec.is_new_style

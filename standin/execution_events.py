"""What is told of one prompt's run: events to its client, and the messages that its history keeps."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from standin.events import Events
from standin.graph import Graph

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """kind: the exception's type as ComfyUI writes it. inputs: by name lists of values, or none."""

    node_id: str
    error: Exception
    inputs: Any
    kind: str


class ExecutionEvents:
    def __init__(self, events: Events, graph: Graph, prompt_id: str) -> None:
        self._events = events
        self._graph = graph
        self._prompt_id = prompt_id
        self.messages: list[tuple[str, dict[str, Any]]] = []

    def fail(self, failure: Failure, executed: Iterable[str], outputs: Iterable[str]) -> None:
        logger.info("!!! Exception during processing !!! %s", failure.error)
        inputs = failure.inputs
        if isinstance(inputs, dict):
            inputs = {name: [_printable(value) for value in values] for name, values in inputs.items()}
        details = self.about(failure.node_id) | {
            "executed": list(executed),
            "exception_message": f"{failure.error}\n",
            "exception_type": failure.kind,
            "traceback": traceback.format_tb(failure.error.__traceback__),
            "current_inputs": inputs,
            "current_outputs": list(outputs),
        }
        self.tell("execution_error", details)

    def about(self, node_id: str) -> dict[str, Any]:
        return {"prompt_id": self._prompt_id, "node_id": node_id, "node_type": self._graph[node_id]["class_type"]}

    def tell(self, event: str, data: dict[str, Any], *, is_for_all: bool = False) -> None:
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        if self._events.current_client is not None or is_for_all:
            self._events.send(event, data, self._events.current_client)

    def executed(self, node_id: str, output: dict[str, Any] | None) -> None:
        message = {"node": node_id, "display_node": node_id, "output": output, "prompt_id": self._prompt_id}
        self._events.send("executed", message, self._events.current_client)


def _printable(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, bool, str)) else str(value)

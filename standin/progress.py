"""What a running job tells its client while it runs: node states, step counts, previews."""

from __future__ import annotations

from typing import Any

from standin.events import PREVIEW_WITH_METADATA, UNENCODED_PREVIEW, Events, Preview


class Progress:
    """Every message carries the states of all nodes started so far, so it grows with the graph."""

    def __init__(self, events: Events, prompt_id: str) -> None:
        self._events = events
        self._prompt_id = prompt_id
        self._states: dict[str, tuple[float, float, str]] = {}

    def start(self, node_id: str) -> None:
        self._set(node_id, 0.0, 1.0, "running")

    def finish(self, node_id: str) -> None:
        _, highest, _ = self._states.get(node_id, (0, 1, ""))
        self._set(node_id, highest, highest, "finished")

    def update(self, node_id: str, value: float, highest: float, preview: Preview | None) -> None:
        client = self._events.current_client
        self._set(node_id, value, highest, "running")
        has_metadata = preview is not None and self._events.wants_metadata(client)
        if has_metadata:
            metadata = {"node_id": node_id, "prompt_id": self._prompt_id} | _names(node_id)
            self._events.send(PREVIEW_WITH_METADATA, (preview, metadata), client)
        message = {"value": value, "max": highest, "prompt_id": self._prompt_id, "node": node_id}
        self._events.send("progress", message, client)
        if preview is not None and not has_metadata:
            self._events.send(UNENCODED_PREVIEW, preview, client)

    def _set(self, node_id: str, value: float, highest: float, state: str) -> None:
        self._states[node_id] = (value, highest, state)
        nodes: dict[str, Any] = {
            each: {"value": value, "max": highest, "state": state, "node_id": each, "prompt_id": self._prompt_id}
            | _names(each)
            for each, (value, highest, state) in self._states.items()
        }
        message = {"prompt_id": self._prompt_id, "nodes": nodes}
        self._events.send("progress_state", message, self._events.current_client)


def _names(node_id: str) -> dict[str, Any]:
    return {"display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}

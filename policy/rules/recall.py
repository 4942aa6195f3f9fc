"""The events of a job that ended, made again from its history entry: for a client whose socket came too late to hear them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from policy.rules.events import Event


def events_of(entry: Any, prompt_id: str) -> list[Event]:
    """As ComfyUI sends them. entry: in the client's names; empty for what is none."""
    if not isinstance(entry, Mapping):
        return []
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, Mapping) else None
    told = [message for message in messages if _is_event(message)] if isinstance(messages, list) else []
    ends = [message for message in told if message[0] not in ("execution_start", "execution_cached")]
    begins = [message for message in told if message not in ends]
    idle = {"node": None, "prompt_id": prompt_id}
    every = [*begins, *_executed(entry.get("outputs"), prompt_id), *ends, ("executing", idle)]
    return [_event(kind, {**data, "prompt_id": prompt_id}) for kind, data in every]


def _event(kind: str, data: dict[str, Any]) -> Event:
    return Event(json.dumps({"type": kind, "data": data}), kind, data["prompt_id"], data)


def _is_event(message: Any) -> bool:
    return (
        isinstance(message, list) and len(message) == 2 and isinstance(message[0], str) and isinstance(message[1], dict)
    )


def _executed(outputs: Any, prompt_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for node_id, output in outputs.items() if isinstance(outputs, Mapping) else ():
        yield "executed", {"node": node_id, "display_node": node_id, "output": output, "prompt_id": prompt_id}

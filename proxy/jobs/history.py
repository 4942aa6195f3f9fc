"""What an entry of ComfyUI's history tells of a job: outcome, times, what failed, which files it lists. Trusts its shape nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policy.rules.results import temp_files
from proxy.jobs.temp_files import Made

_MEMORY_ERRORS: Final = frozenset({"OutOfMemoryError", "OOM_EXCEPTION"})


@dataclass(frozen=True, slots=True)
class Told:
    """times: by the kind of message, in Unix seconds. files: of ComfyUI's temp folder, with how each was made."""

    times: Mapping[str, float] = field(default_factory=dict)
    failing_class: str = ""
    is_error: bool = False
    is_out_of_memory: bool = False
    files: Mapping[str, Made] = field(default_factory=dict)

    @property
    def started_at_s(self) -> float | None:
        return self.times.get("execution_start")

    @property
    def ended_at_s(self) -> float | None:
        return max((at for kind, at in self.times.items() if kind != "execution_start"), default=None)


def read_entry(entry: Any) -> Told | None:
    """None when there is no entry."""
    if not isinstance(entry, dict):
        return None
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, dict) else None
    times: dict[str, float] = {}
    failing_class, cached, is_out_of_memory = "", frozenset[str](), False
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            kind, data = message
            if isinstance(data.get("timestamp"), int | float):
                times[str(kind)] = data["timestamp"] / 1000
            if kind == "execution_error":
                failing_class = str(data.get("node_type", ""))[:100]
                is_out_of_memory = is_memory_error(data)
            elif kind == "execution_cached":
                cached |= cached_nodes(data)
    is_error = "execution_error" in times or (isinstance(status, dict) and status.get("status_str") == "error")
    return Told(times, failing_class, is_error, is_out_of_memory, temp_files_of(entry.get("outputs"), cached))


def is_memory_error(data: Mapping[str, Any]) -> bool:
    """Whether an `execution_error` says that the GPU's memory did not suffice. exception_type is the class's full name, of torch or of an accelerator's own."""
    kind = data.get("exception_type")
    return isinstance(kind, str) and kind.rpartition(".")[2] in _MEMORY_ERRORS


def cached_nodes(data: Any) -> frozenset[str]:
    """The nodes that ComfyUI's cache answers, as its `execution_cached` event lists them at the start of a job (execution.py)."""
    nodes = data.get("nodes") if isinstance(data, dict) else None
    return frozenset(node for node in nodes if isinstance(node, str)) if isinstance(nodes, list) else frozenset()


def temp_files_of(outputs: Any, cached: frozenset[str] = frozenset()) -> dict[str, Made]:
    """The files in ComfyUI's temp folder that a job's outputs list, of all its nodes. cached: nodes that did not run."""
    found: dict[str, Made] = {}
    for node_id, output in outputs.items() if isinstance(outputs, dict) else ():
        made = Made.EARLIER if node_id in cached else Made.NOW
        for name in temp_files(output):
            if found.get(name) is not Made.NOW:
                found[name] = made
    return found

"""What a client sees of one workflow: status, errors, order of events, results and what is written into them, without what differs anyway."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tests.contract.driver import Answer, Comfy, Socket
from tests.differential.generate import Workflow

_ADDRESS = re.compile(r"at 0x[0-9A-Fa-f]+")
_TIMES = (
    "execution_start",
    "execution_cached",
    "executing",
    "executed",
    "execution_success",
    "execution_error",
    "execution_interrupted",
)


@dataclass(eq=False)
class Seen:
    status: int
    error: str = ""
    node_errors: dict[str, Any] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    state: str = ""
    left_out: bool = False

    def __eq__(self, other: object) -> bool:
        """One seen past the gate equals one seen through it. Nodes that the gate left out, and told, are in no picture, nor in one that a later job has
        from the cache: what is written into that was compared when it was made."""
        if not isinstance(other, Seen):
            return NotImplemented
        return bool(_comparable(self, other.left_out) == _comparable(other, self.left_out))


def _comparable(seen: Seen, is_other_without: bool) -> Any:
    cached = {node_id for kind, *told in seen.events if kind == "execution_cached" for node_id in told[0]}
    outputs = {
        node_id: [_without_prompt(item) for item in items]
        if seen.left_out or is_other_without or node_id in cached
        else items
        for node_id, items in seen.outputs.items()
    }
    return seen.status, seen.error, seen.node_errors, seen.events, outputs, seen.state


def _without_prompt(item: list[Any]) -> list[Any]:
    texts = item[-1]
    return (
        [*item[:-1], {key: text for key, text in texts.items() if key != "prompt"}] if isinstance(texts, dict) else item
    )


async def run(comfy: Comfy, socket: Socket, workflow: Workflow) -> Seen:
    """Submits a workflow and waits for its end."""
    answer = await comfy.submit(workflow.prompt, client_id=socket.sid, **workflow.fields)
    if answer.status == 500:
        return Seen(500)
    document = answer.json()
    seen = Seen(answer.status, (document.get("error") or {}).get("type", ""), _errors(document["node_errors"]))
    seen.left_out = any(notice["type"] == "nodes-left-out" for notice in document.get("notices", ()))
    if answer.status != 200:
        return seen
    prompt_id = document["prompt_id"]
    socket.seen.clear()
    # An end comes last of a job's events, and after it ComfyUI has nothing to say of the job.
    await socket.until(
        lambda each: (
            each["type"] == "executing" and each["data"].get("prompt_id") == prompt_id and each["data"]["node"] is None
        )
    )
    wrapped = _wrapped(workflow.prompt)
    seen.events = [
        _event(each, wrapped)
        for each in socket.seen
        if each["type"] in _TIMES and each["data"].get("prompt_id") == prompt_id
    ]
    entry = await _entry(comfy, prompt_id)
    seen.state = entry["status"]["status_str"]
    for node_id, output in entry["outputs"].items():
        seen.outputs[node_id] = [await _shown(comfy, key, item) for key, items in output.items() for item in items]
    return seen


async def _entry(comfy: Comfy, prompt_id: str) -> dict[str, Any]:
    """ComfyUI writes the history just after the last event."""
    while not (found := (await comfy.get(f"/history/{prompt_id}")).json()):
        await asyncio.sleep(0.01)
    entry: dict[str, Any] = found[prompt_id]
    return entry


def _errors(node_errors: dict[str, Any]) -> dict[str, Any]:
    """By node. Details of lists are left out: they hold everybody's files. ComfyUI goes through nodes in an order of its process."""
    return {
        node_id: {
            "class": entry["class_type"],
            "outputs": bool(entry["dependent_outputs"]),
            "errors": sorted(_error(error) for error in entry["errors"]),
        }
        for node_id, entry in node_errors.items()
    }


def _error(error: dict[str, Any]) -> list[str]:
    """A link to nowhere is an exception in ComfyUI, of the node or of the one that wants it, and without the input's name."""
    if error["type"] in ("exception_during_validation", "exception_during_inner_validation"):
        return ["exception"]
    return [error["type"], str((error.get("extra_info") or {}).get("input_name"))]


def _wrapped(prompt: dict[str, Any]) -> set[str]:
    """Nodes of which ComfyUI's cache may know others than through the gate: those with a wrapped value (see _bare), and those that link to them."""
    found: set[str] = set()
    before = -1
    while len(found) > before:
        before = len(found)
        for node_id, node in prompt.items():
            values = node["inputs"].values()
            if any((type(each) is dict and "__value__" in each) or _links_to(each, found) for each in values):
                found.add(node_id)
    return found


def _links_to(value: Any, node_ids: set[str]) -> bool:
    return type(value) is list and bool(value) and type(value[0]) is str and value[0] in node_ids


def _event(message: dict[str, Any], wrapped: set[str]) -> Any:
    kind, data = message["type"], message["data"]
    if kind == "execution_cached":
        return [kind, sorted(set(data["nodes"]) - wrapped)]
    if kind == "execution_error":
        return [kind, data["node_id"], data["exception_type"]]
    return [kind, data.get("node")]


async def _shown(comfy: Comfy, key: str, item: Any) -> Any:
    if not isinstance(item, dict) or "filename" not in item:
        return [key, _ADDRESS.sub("at", item) if isinstance(item, str) else item]
    answer: Answer = await comfy.view(item["filename"], subfolder=item["subfolder"], type=item["type"])
    assert answer.status == 200, (item, answer.text())
    with Image.open(io.BytesIO(answer.body)) as image:
        pixels = hashlib.sha256(image.convert("RGBA").tobytes()).hexdigest()
        texts = {name: _bare(json.loads(text)) for name, text in getattr(image, "text", {}).items()}
        size = image.size
    name = item["filename"] if item["type"] == "output" else "temp"
    return [key, name, item["subfolder"], item["type"], size, pixels, texts]


def _bare(value: Any) -> Any:
    """What is written into a picture. Of the gate's marks nothing is left out: there are none (docs/tenants.md)."""
    if isinstance(value, dict):
        if value.keys() == {"__value__"}:  # ComfyUI takes it out where it validates, the gate everywhere
            return _bare(value["__value__"])
        return {key: _bare(item) for key, item in value.items() if key != "is_changed"}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value

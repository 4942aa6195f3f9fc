"""Rows of `GET /api/jobs` and answers of `GET /api/jobs/{id}`, from what the gate has of a job in its client's names.

As ComfyUI 0.33 makes them from its own queue and history (comfy_execution/jobs.py). Total: what is not understood is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

_PREVIEWED: Final = frozenset({"images", "video", "audio", "3d", "text"})
_MEDIA_FORMATS: Final = ("video/", "audio/")
_MODELS: Final = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXTS: Final = (".txt", ".md", ".json")
_MAX_TEXT_LENGTH: Final = 1024
_START: Final = "execution_start"
_ERROR, _INTERRUPTED = "execution_error", "execution_interrupted"
_ENDS: Final = frozenset({"execution_success", _ERROR, _INTERRUPTED})


class _Item(NamedTuple):
    """One that a node listed. kind: the name of the list. value: an object (a file), or what else stood there (a text)."""

    node_id: str
    kind: str
    value: Any


def row_of_item(item: Sequence[Any], status: str) -> dict[str, Any]:
    """A job that waits or runs, in the list and by its id alike. item: of `GET /queue`; status: `pending` or `in_progress`."""
    number, prompt_id, _, extra, *_ = item
    return _row(
        number,
        {
            "id": prompt_id,
            "status": status,
            "create_time": _mapping(extra).get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow_id(extra),
        },
    )


def row_of_entry(entry: Mapping[str, Any], prompt_id: str) -> dict[str, Any]:
    """A job that has ended, in the list. entry: of the history."""
    number, _, _, extra, *_ = entry["prompt"]
    status = _mapping(entry.get("status"))
    messages = list(_messages(status))
    told = dict(messages)
    items = list(_items(entry.get("outputs")))
    files = [item for item in items if isinstance(item.value, Mapping)]
    previewed = [item for item in files if _is_previewed(item)]
    return _row(
        number,
        {
            "id": prompt_id,
            "status": _status(status, told),
            "create_time": _mapping(extra).get("create_time"),
            "execution_start_time": told.get(_START, {}).get("timestamp"),
            "execution_end_time": next((data.get("timestamp") for kind, data in messages[::-1] if kind in _ENDS), None),
            "execution_error": told.get(_ERROR),
            "outputs_count": len(files),
            "previewable_outputs_count": len(previewed),
            "preview_output": _preview_file(previewed) or _preview_text(items),
            "workflow_id": _workflow_id(extra),
        },
    )


def detail_of_entry(entry: Mapping[str, Any], prompt_id: str) -> dict[str, Any]:
    """A job that has ended, by its id. entry: of the history."""
    _, _, graph, extra, *_ = entry["prompt"]
    return row_of_entry(entry, prompt_id) | {
        "outputs": {node_id: _output(output) for node_id, output in _mapping(entry.get("outputs")).items()},
        "execution_status": entry.get("status"),
        "workflow": {"prompt": graph, "extra_data": extra},
    }


def _row(number: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What ComfyUI does not know of a job it does not name. The number comes first (policy/documents.py)."""
    return {"priority": number} | {name: value for name, value in fields.items() if value is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _workflow_id(extra: Any) -> Any:
    return _mapping(_mapping(_mapping(extra).get("extra_pnginfo")).get("workflow")).get("id")


def _messages(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The events of the job, with their data."""
    listed = status.get("messages")
    for message in listed if isinstance(listed, list) else ():
        match message:
            case [str() as kind, Mapping() as data, *_]:
                yield kind, data


def _status(status: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    if status.get("status_str") != "error":
        return "completed"
    return "cancelled" if _INTERRUPTED in told else "failed"


def _output(output: Any) -> Any:
    """What one node shows, with the names of 3D models as files."""
    if not isinstance(output, Mapping):
        return output
    return {
        kind: [_as_file(value) for value in values if value is not None] if _is_list(kind, values) else values
        for kind, values in output.items()
    }


def _items(outputs: Any) -> Iterator[_Item]:
    for node_id, output in _mapping(outputs).items():
        for kind, values in _mapping(output).items():
            if _is_list(kind, values):
                yield from (_Item(node_id, kind, _as_file(value)) for value in values)


def _is_list(kind: str, values: Any) -> bool:
    """`animated` is a flag, though nodes write it as a list."""
    return kind != "animated" and isinstance(values, list)


def _as_file(value: Any) -> Any:
    """A 3D model is shown by nodes as its name alone."""
    if isinstance(value, str) and value.lower().endswith(_MODELS):
        return {"filename": value, "type": "output", "subfolder": "", "mediaType": "3d"}
    return value


def _name(item: _Item) -> str:
    name = item.value.get("filename")
    return name.lower() if isinstance(name, str) else ""


def _is_previewed(item: _Item) -> bool:
    form = item.value.get("format")
    is_media = isinstance(form, str) and form.startswith(_MEDIA_FORMATS)
    return item.kind in _PREVIEWED or is_media or _name(item).endswith(_MODELS + _TEXTS)


def _rank(item: _Item) -> int:
    """A saved picture comes before a temporary one, and both before a file of text."""
    if item.kind == "text" or _name(item).endswith(_TEXTS):
        return 2
    return 0 if item.value.get("type") == "output" else 1


def _preview_file(previewed: Sequence[_Item]) -> dict[str, Any] | None:
    """The first of the best."""
    best = min(previewed, key=_rank, default=None)
    return None if best is None else {"mediaType": best.kind, **best.value, "nodeId": best.node_id}


def _preview_text(items: Sequence[_Item]) -> dict[str, Any] | None:
    """The first text that a node shows, where there is no file."""
    for item in items:
        if item.kind == "text":
            content = _words(item.value)
            cut = {"truncated": True} if len(content) > _MAX_TEXT_LENGTH else {}
            return {"content": content[:_MAX_TEXT_LENGTH], **cut, "nodeId": item.node_id, "mediaType": item.kind}
    return None


def _words(value: Any) -> str:
    """Nodes wrap a text in a tuple, which JSON has as a list."""
    if isinstance(value, list):
        return str(value[0]) if value else ""
    return str(value)

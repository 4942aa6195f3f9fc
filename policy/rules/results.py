"""What ComfyUI says of a job (graph, outputs, errors), in the client's names. Total: what is not understood, or not the tenant's, is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from policy.namespace import Folder, Namespace, is_path, is_unguessable
from policy.own_ids import made_ids
from policy.salt import SALT

MAX_DEPTH: Final = 64
MAX_MESSAGE_LENGTH: Final = 64 * 1024
"""Of one text in an error: the inputs of a failed node may hold megabytes, each of which costs time."""

UNNAMED_CLIENT: Final = "unnamed"
"""The client id of jobs whose client gave none: ComfyUI sends the events of jobs without an id to everybody."""
SDK_CLIENT: Final = "api-v2"
"""The client id of jobs that come in by Comfy API v2: ComfyUI tells their progress to the tenant's one socket of this id, which the gate keeps open."""
OWN_CLIENTS: Final = frozenset({UNNAMED_CLIENT, SDK_CLIENT})
"""Client ids of the gate's making, which clients are not shown."""

# Where ComfyUI's own nodes and the common packs list the files that they saved.
_FILE_KEYS = ("images", "audio", "video", "gifs", "3d", "files", "a_images", "b_images", "compositor_layers")
CREDENTIALS: Final = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})
"""In `extra_data`: of paid services."""
_PART = r"[\\/]+[^\s\"'<>|*?:\\/,;()\[\]{}]+"
# Two or more segments from a root; not in a URL, a fraction or a relative path. In quotes the segments may have spaces.
_ABSOLUTE = re.compile(rf"(?<![\w.~%:/\\-])(?:[A-Za-z]:)?(?:{_PART}){{2,}}[\\/]*")
_QUOTED = re.compile(r"(?<=([\"']))(?:[A-Za-z]:)?(?:[\\/]+[^\"'<>|*?:\\/\r\n]+){2,}[\\/]*(?=\1)")
_SEPARATORS = re.compile(r"[\\/]+")


def graph_to_client(graph: Any, names: Namespace) -> dict[str, Any]:
    """A workflow without salts and with the client's file names."""
    if not isinstance(graph, Mapping):
        return {}
    nodes: dict[str, Any] = {}
    for node_id, node in graph.items():
        if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
            continue
        inputs = {name: _input_to_client(value, names) for name, value in node["inputs"].items() if name != SALT}
        nodes[node_id] = {"inputs": inputs} | {key: node[key] for key in ("class_type", "_meta") if key in node}
    return nodes


def _input_to_client(value: Any, names: Namespace) -> Any:
    if isinstance(value, str):
        return names.without_root(value)
    if isinstance(value, Mapping):
        return {
            key: names.without_root(item) if isinstance(item, str) else item
            for key, item in value.items()
            if key != SALT
        }
    return value


def extra_data_to_client(extra: Any, names: Namespace) -> dict[str, Any]:
    """extra_data with the client's own id; without one when the client gave none. Credentials of paid services stay out (0.3.64 shows them)."""
    if not isinstance(extra, Mapping):
        return {}
    kept = {key: value for key, value in extra.items() if key not in CREDENTIALS and key != "client_id"}
    client_id = names.client_id_to_client(extra.get("client_id"))
    if client_id is not None and client_id not in OWN_CLIENTS:
        kept["client_id"] = client_id
    return kept


def outputs_to_client(outputs: Any, names: Namespace) -> dict[str, Any]:
    """All outputs of a job, by node."""
    if not isinstance(outputs, Mapping):
        return {}
    return {node_id: output_to_client(output, names) for node_id, output in outputs.items()}


def output_to_client(output: Any, names: Namespace) -> Any:
    """What one node shows: lists of files under any key, texts, flags. Files that are not the tenant's are left out."""
    return _show(output, names, MAX_DEPTH)


def _show(value: Any, names: Namespace, depth: int) -> Any:
    if isinstance(value, str):
        return names.clean_text(value)
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        if isinstance(value.get("filename"), str):
            return _file_to_client(value, names, depth)
        return {key: _show(item, names, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        shown = [(item, _show(item, names, depth - 1)) for item in value]
        return [new for old, new in shown if new is not None or old is None]
    return value


def _file_to_client(item: Mapping[str, Any], names: Namespace, depth: int) -> dict[str, Any] | None:
    """`{filename, subfolder, type, …}`: the temp files of a job are its tenant's, other files by their path."""
    filename, subfolder, folder = item["filename"], item.get("subfolder", ""), item.get("type")
    if not isinstance(subfolder, str) or folder not in tuple(Folder):
        return None
    path = f"{subfolder}/{filename}" if subfolder else filename
    shown = names.path_to_client(path)
    if shown is None and folder == Folder.TEMP and is_path(path):
        shown = path
    if not shown:
        return None
    kept: dict[str, Any] = {
        key: scrub(value, names, depth - 1) for key, value in item.items() if key not in ("filename", "subfolder")
    }
    if "/" in filename:
        return kept | {"filename": shown, "subfolder": ""}
    shown_folder, _, name = shown.rpartition("/")
    return kept | {"filename": name, "subfolder": shown_folder}


def temp_files(output: Any) -> list[str]:
    """The files in a node's output that lie in no tenant's folder, as the registry keeps them: `name` or `subfolder/name`; and ids of bytes.

    SECURITY: nodes also show what the client gave them (a camera, boxes), so only the lists that hold saved files count, and of the
    texts only names that nobody can guess (test_results.py::test_shown_values_of_the_client_grant_nothing).
    """
    if not isinstance(output, Mapping):
        return []
    items = [item for key in _FILE_KEYS for item in _list(output.get(key)) if isinstance(item, Mapping)]
    found = [
        f"{item['subfolder']}/{item['filename']}" if item.get("subfolder") else item["filename"]
        for item in items
        if item.get("type") == Folder.TEMP and isinstance(item.get("filename"), str)
    ]
    texts = [text.removeprefix("temp/") for text in _list(output.get("result")) if isinstance(text, str)]
    # A path, since the gate deletes these files when they are old: what leads out of the folder names nothing there.
    kept = [name for name in found if is_path(name)] + [text for text in texts if is_unguessable(text)]
    return [*kept, *made_ids(items)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def scrub(value: Any, names: Namespace, depth: int = MAX_DEPTH) -> Any:
    """Messages, tracebacks and the inputs of a failed node: no server folders, no prefix, no salt."""
    if isinstance(value, str):
        return scrub_text(value, names)
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {key: scrub(item, names, depth - 1) for key, item in value.items() if key != SALT}
    if isinstance(value, list):
        return [scrub(item, names, depth - 1) for item in value]
    return value


def scrub_text(text: str, names: Namespace) -> str:
    """Absolute paths become their last part."""
    if len(text) > MAX_MESSAGE_LENGTH:
        text = f"{text[:MAX_MESSAGE_LENGTH]}…"
    if "/" not in text and "\\" not in text:
        return text
    text = names.clean_text(text)
    return _ABSOLUTE.sub(_keep_last, _QUOTED.sub(_keep_last, text))


def _keep_last(found: re.Match[str]) -> str:
    return next(part for part in reversed(_SEPARATORS.split(found[0])) if part)


def status_to_client(status: Any, names: Namespace) -> dict[str, Any] | None:
    """A history entry's status, with its messages."""
    if not isinstance(status, Mapping):
        return None
    kept = {key: status[key] for key in ("status_str", "completed") if key in status}
    messages = status.get("messages")
    kept["messages"] = scrub(messages, names) if isinstance(messages, list) else []
    return kept


def item_to_client(item: Any, names: Namespace, number: int) -> list[Any] | None:
    """A queue item `[number, prompt_id, graph, extra_data, outputs]`, None when it is not the tenant's.

    number: the job's place among the tenant's own, since ComfyUI's would tell how busy the others are.
    """
    if not isinstance(item, list) or len(item) < 5 or not is_own_item(item, names):
        return None
    outputs = [node_id for node_id in item[4] if isinstance(node_id, str)] if isinstance(item[4], list) else []
    return [number, item[1], graph_to_client(item[2], names), extra_data_to_client(item[3], names), outputs]


def is_own_item(item: Any, names: Namespace) -> bool:
    """Whether a queue item is the tenant's: its extra_data carries the client id that the gate set."""
    if not isinstance(item, list) or len(item) < 4 or not isinstance(item[1], str) or not isinstance(item[3], Mapping):
        return False
    return names.client_id_to_client(item[3].get("client_id")) is not None


def entry_to_client(entry: Any, names: Namespace, number: int) -> dict[str, Any] | None:
    """A history entry, None when it is not the tenant's."""
    if not isinstance(entry, Mapping):
        return None
    prompt = item_to_client(entry.get("prompt"), names, number)
    if prompt is None:
        return None
    kept: dict[str, Any] = {
        "prompt": prompt,
        "outputs": outputs_to_client(entry.get("outputs"), names),
        "status": status_to_client(entry.get("status"), names),
    }
    if isinstance(entry.get("meta"), Mapping):
        kept["meta"] = scrub(entry["meta"], names)
    return kept

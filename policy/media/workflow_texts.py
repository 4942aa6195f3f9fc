"""The texts in which ComfyUI writes a workflow: the tenant's own spelling of one, and which texts are one at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from policy.media.editing import GONE, Judge
from policy.namespace import Namespace
from policy.salt import SALT

WORKFLOW_KEYS: Final = frozenset({"prompt", "workflow"})
"""Under which ComfyUI writes what it runs, and what the web UI shows (nodes.py, SaveImage; comfy_api/latest/_ui.py)."""
# Where the graph stands in a document: of a safetensors file, of a glTF, of an SVG, and in the comment of common packs' films.
_AROUND_GRAPHS: Final = ("prompt", "__metadata__", "asset", "extras")

MAX_OWN_BYTES: Final = 4 * 1024**2
"""Of a file, of texts that are given in the tenant's own words."""
MAX_PARTS: Final = 250_000
"""Of a text that is read: each takes many times as much memory as in the file."""
_BEFORE_PARTS: Final = (b",", b"[", b"{")


def own_texts(names: Namespace, max_bytes: int = MAX_OWN_BYTES) -> Judge:
    """Takes out of a workflow what the gate has written into it for ComfyUI: salts, and the tenant's own folder.

    `workflow` is what the client sent, and stays. Where the client's spelling is the longer one even without spaces, the gate's stays.
    max_bytes: of all texts that it reads.
    """
    room = max_bytes

    def judge(key: str, text: bytes) -> bytes | None:
        nonlocal room
        if key.casefold() == "workflow" or not _is_marked(text, names):
            return None
        room -= len(text)
        if room < 0 or sum(map(text.count, _BEFORE_PARTS)) > MAX_PARTS:
            return None
        try:
            written = text.decode()
            document = json.loads(written)  # noqa: TID251 - as ComfyUI reads and writes it, so that nothing else changes
            return _fit(_own_document(document, names), written, len(text))
        except (ValueError, RecursionError):
            return None

    return judge


def workflow_goes(key: str, text: bytes) -> bytes | None:
    """A judge that takes out whatever ComfyUI may have written of a workflow: its keys, and any JSON, as which it writes what clients send besides."""
    if key.casefold() in WORKFLOW_KEYS:
        return GONE
    if text.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        json.loads(text)  # noqa: TID251 - as ComfyUI wrote it
    except (ValueError, RecursionError):
        return None
    return GONE


def _own_document(document: Any, names: Namespace) -> Any:
    if not isinstance(document, Mapping):
        return document
    if any(map(_is_node, document.values())):
        return {node_id: _own_node(node, names) for node_id, node in document.items()}
    return {
        key: _own_part(part, names) if key in _AROUND_GRAPHS else part  # parts of no graph stay as they are
        for key, part in document.items()
    }


def _own_part(part: Any, names: Namespace) -> Any:
    if not isinstance(part, str) or not _is_marked(part.encode("utf-8", "surrogatepass"), names):
        return _own_document(part, names)
    try:
        document = json.loads(part)  # noqa: TID251 - as above
    except ValueError:
        return part
    return json.dumps(_own_document(document, names))


def _is_marked(text: bytes, names: Namespace) -> bool:
    """Whether anything of the gate's may be in it."""
    return SALT.encode() in text or names.root.encode() in text


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    )


def _own_node(node: Any, names: Namespace) -> Any:
    """ComfyUI adds members of its own to a node while it runs, which stay as without a gate."""
    return {**node, "inputs": _own_input(node["inputs"], names)} if _is_node(node) else node


def _own_input(found: Any, names: Namespace) -> Any:
    """Names of files stand at any depth (policy/path_texts.py, rewrite_texts)."""
    if isinstance(found, str):
        return names.without_root(found)
    if isinstance(found, list):
        return [_own_input(item, names) for item in found]
    if isinstance(found, dict):
        return {names.without_root(key): _own_input(item, names) for key, item in found.items() if key != SALT}
    return found


def _fit(document: Any, written: str, size: int) -> bytes | None:
    """As JSON in the style of what stood there, filled up with spaces, which JSON passes over (RFC 8259, 2); None where it does not fit.

    They stand before its last brace: the web UI looks for a text of an MP3 by its brace and the zero byte behind it.
    """
    indent = 2 if written.startswith("{\n") else None
    is_close = indent is None and '": ' not in written
    for separators in ((",", ":") if is_close else None, (",", ":")):
        text = json.dumps(document, indent=indent, separators=separators).encode()
        if len(text) <= size:
            return text[:-1].ljust(size - 1) + text[-1:]
        indent = None
    return None

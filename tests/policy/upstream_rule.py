"""What holds for every document that reaches ComfyUI's `POST /prompt`, checked without any code of the policy's own.

ComfyUI trusts what it gets, so this rule is the gate's to keep. The checker reads the bytes that are sent and ComfyUI's own description of
its classes, nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, TypeGuard

KEYS: Final = frozenset(
    {"prompt", "client_id", "extra_data", "prompt_id", "number", "front", "partial_execution_targets"}
)
NODE_KEYS: Final = frozenset({"class_type", "inputs", "_meta"})
TEXTS: Final = frozenset({"client_id", "auth_token_comfy_org", "api_key_comfy_org"})
CORE: Final = ("nodes", "comfy_extras", "comfy_api_nodes")
SALT: Final = "comfygate_tenant"
MAX_DEPTH: Final = 400
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NODE_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,128}")
_ANNOTATED = re.compile(r"(.*) \[(?:input|output|temp)\]", re.DOTALL)

# (class, input) that name files, by what they name: a file to read, a folder, a path that new files begin with, or a bare name.
FILES: Final = {
    ("LoadImage", "image"): "file",
    ("LoadImageMask", "image"): "file",
    ("LoadImageOutput", "image"): "file",
    ("LoadAudio", "audio"): "file",
    ("PackLoadVideo", "video"): "file",
    ("PackLoadPath", "file"): "file",
    ("PackLoadPath", "video_path"): "folder",
    ("PackLoadFolder", "directory"): "folder",
    ("LoadImageDataSetFromFolder", "folder"): "folder",
    ("SaveImageDataSetToFolder", "folder_name"): "folder",
    ("PackSave", "output_path"): "folder",
    ("SaveImage", "filename_prefix"): "prefix",
    ("SaveText", "filename_prefix"): "prefix",
    ("SaveLoRA", "prefix"): "prefix",
    ("SaveImageDataSetToFolder", "filename_prefix"): "bare",
    ("PackSave", "filename_prefix"): "bare",
}


def find_breaches(
    body: bytes, object_info: dict[str, Any], tenant: str | None, shared: tuple[str, ...] = ()
) -> list[str]:
    """What of the rule a body breaks, in words. tenant None: an admin's, whose names are its own. shared: inputs that all may read."""
    try:
        document = json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_read_object)
    except ValueError as error:
        return [f"no strict JSON: {error}"]
    if not isinstance(document, dict):
        return ["no object"]
    nodes = document.get("prompt")
    breaches = [
        *_unknown("document", document, KEYS),
        *_values(document),
        *_place(document, tenant),
        *_extra_data(document, tenant),
    ]
    if not isinstance(nodes, dict) or not nodes:
        return [*breaches, "no nodes"]
    shapes = [breach for node_id, node in nodes.items() for breach in _node(node_id, node, object_info)]
    if shapes:
        return [*breaches, *shapes]
    breaches += _targets(document, nodes)
    breaches += _links(nodes, object_info)
    if tenant is not None:
        breaches += _files(nodes, tenant, shared)
        breaches += _salts(nodes, object_info, tenant)
    return breaches


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _unknown(what: str, found: dict[str, Any], known: frozenset[str]) -> Iterator[str]:
    yield from (f"{what} has the key {key!r}" for key in found.keys() - known)


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield "a number is not finite"
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield "a text is no Unicode"
    elif isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _values(key)
            yield from _values(item)


def _place(document: dict[str, Any], tenant: str | None) -> Iterator[str]:
    number, prompt_id = document.get("number"), document.get("prompt_id")
    if number is not None and type(number) not in (int, float):
        yield "number is none"
    if prompt_id is not None and not (isinstance(prompt_id, str) and _UUID.fullmatch(prompt_id)):
        yield "prompt_id is no UUID"
    if tenant is not None and (number is None or prompt_id is None):
        yield "the gate did not give the place"
    if tenant is None and number is not None and prompt_id is not None:
        yield "a client chose both number and id"
    if "front" in document and (tenant is not None or document["front"] is not True):
        yield "front is the client's"


def _extra_data(document: dict[str, Any], tenant: str | None) -> Iterator[str]:
    extra = document.get("extra_data")
    if not isinstance(extra, dict):
        yield "extra_data is no object"
        return
    others = extra.keys() - TEXTS - {"extra_pnginfo"}
    yield from (f"{key} is no text and no number" for key in others if not isinstance(extra[key], str | int | float))
    if "create_time" in others or len(others) > 32:
        yield "extra_data has more than it may"
    yield from (f"{key} is no text" for key in TEXTS & extra.keys() if not isinstance(extra[key], str))
    client_id = document.get("client_id")
    if client_id != extra.get("client_id") or ("client_id" in document and not isinstance(client_id, str)):
        yield "client_id is not one text"
    if tenant is not None and not str(client_id).startswith(f"{tenant}."):
        yield "client_id does not name its tenant"
    if "extra_pnginfo" in extra:
        pnginfo = extra["extra_pnginfo"]
        if not isinstance(pnginfo, dict) or any(not 1 <= len(key) <= 79 or not key.isascii() for key in pnginfo):
            yield "extra_pnginfo is no object of what a picture can hold"
        elif not isinstance(pnginfo.get("workflow", {}), dict):
            yield "the workflow is no object"
        elif not isinstance(pnginfo.get("workflow", {}).get("id", ""), str):
            yield "the workflow's id is no text"


def _node(node_id: str, node: Any, object_info: dict[str, Any]) -> Iterator[str]:
    if not _NODE_ID.fullmatch(node_id):
        yield f"node id {node_id!r}"
    if not isinstance(node, dict):
        yield f"node {node_id} is no object"
        return
    yield from _unknown(f"node {node_id}", node, NODE_KEYS)
    if not isinstance(node.get("class_type"), str) or node["class_type"] not in object_info:
        yield f"node {node_id} is of no class"
    if not isinstance(node.get("inputs"), dict):
        yield f"node {node_id} has no inputs"


def _targets(document: dict[str, Any], nodes: dict[str, Any]) -> Iterator[str]:
    targets = document.get("partial_execution_targets", [])
    if not isinstance(targets, list) or any(not isinstance(each, str) or each not in nodes for each in targets):
        yield "the targets are no nodes"


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """What ComfyUI follows (comfy_execution/graph_utils.py)."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def links_of(node: dict[str, Any]) -> Iterator[list[Any]]:
    """Links in all inputs, declared or not, plain or wrapped: a wrapped one becomes a plain one in ComfyUI."""
    for value in node["inputs"].values():
        inner = value.get("__value__") if isinstance(value, dict) else value
        if is_link(inner):
            yield inner


def _links(nodes: dict[str, Any], object_info: dict[str, Any]) -> Iterator[str]:
    sources: dict[str, set[str]] = {node_id: set() for node_id in nodes}
    for node_id, node in nodes.items():
        for target, output in links_of(node):
            if target not in nodes:
                yield f"a link of node {node_id} leads to no node"
            elif type(output) is not int or not 0 <= output < len(object_info[nodes[target]["class_type"]]["output"]):
                yield f"a link of node {node_id} leads to no output"
            else:
                sources[node_id].add(target)
    for _ in range(MAX_DEPTH + 1):
        ready = {node_id for node_id, targets in sources.items() if not targets}
        if not ready:
            if sources:
                yield f"a cycle among {sorted(sources)}"
            return
        sources = {node_id: targets - ready for node_id, targets in sources.items() if node_id not in ready}
    yield f"chains of more than {MAX_DEPTH} nodes"


def _files(nodes: dict[str, Any], tenant: str, shared: tuple[str, ...]) -> Iterator[str]:
    for node_id, node in nodes.items():
        for name, value in node["inputs"].items():
            kind = FILES.get((node["class_type"], name))
            if kind is not None and not (isinstance(value, str) and _is_own(value, kind, tenant, shared)):
                yield f"{name} of node {node_id} names no {kind} of the tenant's"


def _is_own(value: str, kind: str, tenant: str, shared: tuple[str, ...]) -> bool:
    annotated = _ANNOTATED.fullmatch(value) if kind == "file" else None
    path = annotated[1] if annotated else value
    segments = path.split("/")
    is_plain = not {"", ".", ".."} & set(segments) and "\\" not in path
    if kind == "bare":
        return is_plain and len(segments) == 1
    if kind == "folder" and path == f"tenants/{tenant}":
        return True
    if kind == "file" and (value == "" or path in shared):
        return True
    return is_plain and len(segments) > 2 and segments[:2] == ["tenants", tenant]


def _salts(nodes: dict[str, Any], object_info: dict[str, Any], tenant: str) -> Iterator[str]:
    """ComfyUI's own output nodes carry the tenant; others must not, so what they show is made from something that is the tenant's."""
    for node_id, node in nodes.items():
        entry = object_info[node["class_type"]]
        found = node["inputs"].get(SALT)
        is_core = entry["python_module"].split(".")[0] in CORE
        if found is not None and (found != tenant or not is_core):
            yield f"node {node_id} is salted wrongly"
        if entry.get("output_node") is True:
            if is_core and found is None:
                yield f"node {node_id} is not salted with its tenant"
            family = _family(node_id, nodes)
            has_core = any(
                object_info[nodes[each]["class_type"]]["python_module"].split(".")[0] in CORE for each in family
            )
            if has_core and not any(_is_apart(nodes[each], tenant) for each in family):
                yield f"node {node_id} shares its result with other tenants"


def _family(node_id: str, nodes: dict[str, Any]) -> set[str]:
    """A node and what it is made from."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += [target for target, _ in links_of(nodes[each]) if target in nodes]
    return found


def _is_apart(node: dict[str, Any], tenant: str) -> bool:
    return SALT in node["inputs"] or f'"tenants/{tenant}' in json.dumps(node["inputs"])

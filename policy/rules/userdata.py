"""Userdata: workflows, templates and what else a web UI keeps, each tenant's in a folder of its own. Trusts the namespace for every path."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any, Final

from policy.call import ClientReply, Opaque, RuleGenerator, StreamedBody, UpstreamCall, UpstreamPath, UpstreamText
from policy.namespace import path_to_client
from policy.rule_context import RuleInput
from policy.rules.jobs import passed
from policy.violation import Reason, Violation

SETTINGS_FILE: Final = "comfy.settings.json"
"""Where /settings keeps the tenant's settings: reached through that route only, as they could be made unreadable here."""

# The web UI leaves a 404 unread, and Chromium keeps a connection busy with an unread answer that it may not store: three of its six.
_STORABLE: Final = (("Cache-Control", "private, no-cache"),)
_FLAGS = ("recurse", "full_info", "split")


def users(request: RuleInput) -> ClientReply:
    """GET /users: one user, whatever ComfyUI has."""
    return ClientReply(body={"storage": "server", "migrated": True})


def _path_of(request: RuleInput, parameter: str) -> UpstreamPath:
    names = request.context.names
    path = request.call.parameters[parameter]
    upstream = names.userdata_to_upstream(path)
    if _is_settings("/".join(names.read(path))):
        raise Violation(Reason.NAME_REFUSED, "Settings are read and written by /settings.")
    return upstream


def _is_settings(path: str) -> bool:
    """Some file systems take other spellings for the same name: without invisible characters, dots at the end or the name of a stream."""
    visible = "".join(character for character in path if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", visible).casefold().partition(":")[0].rstrip(". ") == SETTINGS_FILE


def _file_query(request: RuleInput) -> tuple[tuple[str, UpstreamText], ...]:
    """ComfyUI compares these words exactly (user_manager.py, post_userdata)."""
    query: list[tuple[str, UpstreamText]] = []
    if request.call.first("overwrite") == "false":
        query.append(("overwrite", Opaque("false")))
    if (request.call.first("full_info") or "").lower() == "true":
        query.append(("full_info", Opaque("true")))
    return tuple(query)


def read(request: RuleInput) -> UpstreamCall:
    """GET /userdata/{file}."""
    return UpstreamCall(request.call.method, (Opaque("userdata"), _path_of(request, "file")))


def write(request: RuleInput) -> UpstreamCall:
    """POST /userdata/{file}: the body goes on as it comes."""
    return UpstreamCall(
        "POST",
        (Opaque("userdata"), _path_of(request, "file")),
        _file_query(request),
        StreamedBody(),
        "application/octet-stream",
    )


def delete(request: RuleInput) -> UpstreamCall:
    """DELETE /userdata/{file}."""
    return UpstreamCall("DELETE", (Opaque("userdata"), _path_of(request, "file")))


def move(request: RuleInput) -> UpstreamCall:
    """POST /userdata/{file}/move/{dest}: both ends in the tenant's folder, whole directories too."""
    segments = (Opaque("userdata"), _path_of(request, "file"), Opaque("move"), _path_of(request, "dest"))
    return UpstreamCall("POST", segments, _file_query(request))


def saved(value: Any, request: RuleInput) -> Any:
    """What ComfyUI tells of a written or moved file: its path, or an object with it. None when that is not the tenant's."""
    names = request.context.names
    if isinstance(value, str):
        return names.path_to_client(value)
    path = value.get("path") if isinstance(value, dict) else None
    shown = names.path_to_client(path) if isinstance(path, str) else None
    return None if shown is None else _info(value, shown)


def _info(entry: dict[str, Any], path: str) -> dict[str, Any]:
    return {"path": path} | {key: entry[key] for key in ("size", "modified", "created") if key in entry}


def list_directory(request: RuleInput) -> RuleGenerator:
    """GET /userdata?dir=…: paths in the answer are relative to that directory. A new tenant's own root is empty, not missing."""
    directory = request.call.first("dir")
    if not directory:
        # ComfyUI refuses this itself, in its words.
        reply = yield UpstreamCall("GET", (Opaque("userdata"),))
        return passed(reply) if reply.status != 200 else ClientReply(body=[])
    names = request.context.names
    path = names.userdata_folder_to_upstream(directory)
    is_root = path == names.root
    query: list[tuple[str, UpstreamText]] = [("dir", path)]
    query += [(flag, Opaque("true")) for flag in _FLAGS if (request.call.first(flag) or "").lower() == "true"]
    reply = yield UpstreamCall("GET", (Opaque("userdata"),), tuple(query))
    if reply.status == 404 and is_root:
        return ClientReply(body=[])
    if reply.status != 200:
        return replace(passed(reply), headers=_STORABLE)
    entries = reply.value if isinstance(reply.value, list) else []
    shown = (_entry(entry, is_root) for entry in entries)
    return ClientReply(body=[entry for entry in shown if entry is not None])


def _entry(entry: Any, is_root: bool) -> Any:
    """A path, `[path, part, part, …]` or an object with a path."""
    path = entry
    if isinstance(entry, list):
        path = entry[0] if entry else None
    elif isinstance(entry, dict):
        path = entry.get("path")
    shown = path_to_client(path) if isinstance(path, str) else None
    if shown is None or (is_root and _is_settings(shown)):
        return None
    if isinstance(entry, list):
        return [shown, *shown.split("/")] if len(entry) > 1 else [shown]
    return _info(entry, shown) if isinstance(entry, dict) else shown


def list_tree(request: RuleInput) -> RuleGenerator:
    """GET /v2/userdata?path=…: everything below, with paths from the user's root."""
    path = request.call.first("path") or ""
    names = request.context.names
    upstream = names.userdata_folder_to_upstream(path)
    reply = yield UpstreamCall("GET", (Opaque("v2"), Opaque("userdata")), (("path", upstream),))
    if reply.status == 404 and not path:
        return ClientReply(body=[])
    if reply.status != 200:
        return passed(reply)
    shown = (_tree_entry(entry, request) for entry in (reply.value if isinstance(reply.value, list) else []))
    return ClientReply(body=[entry for entry in shown if entry is not None])


def _tree_entry(entry: Any, request: RuleInput) -> dict[str, Any] | None:
    path = entry.get("path") if isinstance(entry, dict) else None
    shown = request.context.names.path_to_client(path) if isinstance(path, str) else None
    if not shown or _is_settings(shown):
        return None
    kept = {key: entry[key] for key in ("type", "size", "modified") if key in entry}
    return {"name": shown.rpartition("/")[2], "path": shown} | kept

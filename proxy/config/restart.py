"""Which changed settings a running gate does not take up: what it opened or built at its start stays until it is started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.config.reader import Config

AT_START: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"host", "port", "header_timeout", "max_header_bytes", "keepalive_timeout", "state_dir"}),
    "ops": frozenset({"host", "port"}),
    "upstream": frozenset({"url", "directory", "connect_timeout"}),
    "log": frozenset({"format", "level", "audit_file", "audit_max_bytes", "audit_keep"}),
    "limits": frozenset({"storage", "storage_file", "storage_timeout"}),
    "jobs": frozenset({"database", "database_file"}),
    "storage": frozenset({"url", "endpoint", "public_endpoint", "region", "credentials_file"}),
}
OF_COMFYUI: Final = ("url", "directory", "shared_directory")
"""Of the first one, where there are several, and its name. Whatever else there is of ComfyUIs, and which others, is taken up (proxy/wiring/fleet.py)."""


def need_restart(old: Config, new: Config, began_with: Config | None = None) -> list[str]:
    """The changed settings that only a restart takes up, as `server.port` or `comfyui.gpu-1.url`. began_with: of the gate's start."""
    changed = [] if old.comfyui == new.comfyui else _of_comfyuis(began_with or old, new)
    for section, names in AT_START.items():
        for name in sorted(names):
            is_of_first = section == "upstream" and name in OF_COMFYUI and bool(old.comfyui or new.comfyui)
            if not is_of_first and _value(old, section, name) != _value(new, section, name):
                changed.append(f"{section}.{name}")
    return changed


def _of_comfyuis(old: Config, new: Config) -> list[str]:
    """`comfyui`, with the reason, where none of the others are taken up either."""
    if not old.comfyui and not new.comfyui:
        return []
    if not old.comfyui:
        return [
            "comfyui (a gate that was started with one ComfyUI and no name for it has not looked at what jobs need)"
        ]
    before, after = old.comfyui[0], new.comfyuis[0]
    if not new.comfyui or before.name != after.name:
        return [f"comfyui (the first one, {before.name}, has the tenants' uploads, saved workflows and settings)"]
    return [f"comfyui.{before.name}.{name}" for name in OF_COMFYUI if getattr(before, name) != getattr(after, name)]


def _value(config: Config, section: str, name: str) -> object:
    part = getattr(config, section)
    # An audit_file that is not given is another than an empty one.
    is_audit = (section, name) == ("log", "audit_file")
    return config.audit_file if is_audit else getattr(part, name)

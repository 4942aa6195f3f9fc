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
OF_COMFYUI: Final = ("url", "directory", "shared_directory", "gone_after")
"""Of each of several; their number, names and order too. The others are read when a job is given (proxy/jobs/placing.py), and at a warm-up."""


def need_restart(old: Config, new: Config) -> list[str]:
    """The changed settings that only a restart takes up, as `server.port` or `comfyui.gpu-2.url`."""
    changed = _of_comfyuis(old, new)
    for section, names in AT_START.items():
        for name in sorted(names):
            is_of_first = section == "upstream" and name in OF_COMFYUI and bool(old.comfyui or new.comfyui)
            if not is_of_first and _value(old, section, name) != _value(new, section, name):
                changed.append(f"{section}.{name}")
    return changed


def _of_comfyuis(old: Config, new: Config) -> list[str]:
    """`comfyui` where it is not the same ones in the same order any more."""
    if [comfyui.name for comfyui in old.comfyui] != [comfyui.name for comfyui in new.comfyui]:
        return ["comfyui"]
    return [
        f"comfyui.{before.name}.{name}"
        for before, after in zip(old.comfyui, new.comfyui, strict=True)
        for name in OF_COMFYUI
        if getattr(before, name) != getattr(after, name)
    ]


def _value(config: Config, section: str, name: str) -> object:
    part = getattr(config, section)
    # An audit_file that is not given is another than an empty one.
    is_audit = (section, name) == ("log", "audit_file")
    return config.audit_file if is_audit else getattr(part, name)

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


def need_restart(old: Config, new: Config) -> list[str]:
    """The changed settings that only a restart takes up, as `server.port`."""
    changed = ["comfyui"] if old.comfyui != new.comfyui else []
    return changed + [
        f"{section}.{name}"
        for section, names in AT_START.items()
        for name in sorted(names)
        if _value(old, section, name) != _value(new, section, name)
    ]


def _value(config: Config, section: str, name: str) -> object:
    part = getattr(config, section)
    # An audit_file that is not given is another than an empty one.
    is_audit = (section, name) == ("log", "audit_file")
    return config.audit_file if is_audit else getattr(part, name)

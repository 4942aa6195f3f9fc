"""n8n and Open WebUI, whole, from their registries: once, into test output. They are gigabytes, so they are no part of the suite nor of `make clients`."""

from __future__ import annotations

import platform
from pathlib import Path

from tests.clients.installed import client_folder, node_client_folder

LIMIT_S = 3600.0
N8N = "2.40.7"
NODE = "24.22.3"
"""That this n8n runs on."""
OPEN_WEBUI = "0.12.4"
# n8n names a file of another server in the place of a version; its node for spreadsheets is the only one that uses it.
_OVERRIDES = {"xlsx": "0.18.5"}
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def n8n_command() -> tuple[str, str]:
    """Node, and the program that it runs. What n8n would compile for itself (SQLite) is not there: it takes PostgreSQL."""
    kind = f"node-linux-{_MACHINES[platform.machine()]}"
    node = node_client_folder(kind, NODE) / "node_modules" / kind / "bin" / "node"
    program = node_client_folder("n8n", N8N, _OVERRIDES, LIMIT_S) / "node_modules" / "n8n" / "bin" / "n8n"
    return str(node), str(program)


def open_webui_binaries() -> Path:
    return client_folder(f"open-webui=={OPEN_WEBUI}", limit_s=LIMIT_S) / "bin"

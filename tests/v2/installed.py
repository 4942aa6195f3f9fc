"""Comfy-Org's clients and server of the Comfy API v2, installed from their registries: once, into test output."""

from __future__ import annotations

from pathlib import Path

from tests.clients.installed import node_folder, node_program, python_folder

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
SDK = HERE / "requirements-sdk.txt"
PROXY = HERE / "requirements-proxy.txt"
NODE_FILES = (HERE / "node" / "package.json", HERE / "node" / "package-lock.json")
OLDEST_NODE = 22
# Wheels alone: nothing of a package runs while it is installed.
_WHEELS = "--only-binary=:all:"


def sdk_python() -> str:
    """The interpreter that has comfy-sdk."""
    return str(python_folder("comfy-sdk", SDK, _WHEELS) / "bin" / "python")


def proxy_program() -> str:
    """comfy-api-proxy."""
    return str(python_folder("comfy-api-proxy", PROXY, _WHEELS) / "bin" / "comfy-api-proxy")


def node() -> str:
    return node_program(OLDEST_NODE)


def sdk_modules() -> Path:
    """A node_modules that has @comfyorg/sdk."""
    return node_folder("comfyorg-sdk", NODE_FILES) / "node_modules"

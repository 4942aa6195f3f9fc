"""Routes that describe the installation, the web UI's files, and what is switched off."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from standin.catalogue import CATALOGUE, describe_all
from standin.events import FEATURES
from standin.folders import Folders
from standin.replacements import REPLACEMENTS

VERSION = "0.33.0"
OWN_PAGES = Path(__file__).parent / "static"
PACKAGES = {
    "comfyui-frontend-package": "1.49.6",
    "comfyui-workflow-templates": "0.11.44",
    "comfyui-embedded-docs": "0.5.10",
    "comfy-kitchen": "0.2.31",
    "comfy-aimdo": "0.4.13",
}
MEMORY_BYTES = 24 * 1024**3
UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
ASSET_CALLS = (
    ("HEAD", "/api/assets/hash/{hash}"),
    ("GET", "/api/assets"),
    ("POST", "/api/assets"),
    ("POST", "/api/assets/from-hash"),
    ("POST", "/api/assets/prune"),
    ("POST", "/api/assets/seed"),
    ("POST", "/api/assets/seed/cancel"),
    ("GET", "/api/assets/seed/status"),
    ("GET", "/api/assets/tags/refine"),
    ("GET", f"/api/assets/{{id:{UUID}}}"),
    ("GET", f"/api/assets/{{id:{UUID}}}/content"),
    ("PUT", f"/api/assets/{{id:{UUID}}}"),
    ("DELETE", f"/api/assets/{{id:{UUID}}}"),
    ("POST", f"/api/assets/{{id:{UUID}}}/tags"),
    ("DELETE", f"/api/assets/{{id:{UUID}}}/tags"),
    ("GET", "/api/tags"),
)
ASSETS_OFF = {
    "code": "SERVICE_DISABLED",
    "message": "Assets system is disabled. Start the server with --enable-assets to use this feature.",
    "details": {},
}
BLUEPRINT_NAMESPACE = uuid.UUID("6f1d9a52-6f0e-4c6e-9f43-0c5d7c0b7a51")


def web_root(*, has_frontend: bool) -> Path:
    """The folder of ComfyUI's own web UI when its package is installed, else a page of ours."""
    spec = importlib.util.find_spec("comfyui_frontend_package") if has_frontend else None
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(folder) / "static" / "index.html").is_file():
            return Path(folder) / "static"
    return OWN_PAGES


@dataclass
class Memory:
    """What `GET /system_stats` tells of it."""

    free_bytes: int = MEMORY_BYTES // 2


class PageRoutes:
    def __init__(
        self, folders: Folders, root: Path, arguments: list[str], memory: Memory, scripts: Sequence[str] = ()
    ) -> None:
        """scripts: of packs, beside the web UI's own."""
        self._memory = memory
        self._scripts = scripts
        self._folders = folders
        self._root = root
        self._arguments = arguments
        self._subgraphs = {
            hashlib.sha256(name.encode()).hexdigest(): name for name in ("Sharpen", "Image to Sketch", "Colour Match")
        }

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.get_index),
            web.get("/extensions", self.get_extensions),
            web.get("/features", self.get_features),
            web.get("/system_stats", self.get_system_stats),
            web.get("/object_info", self.get_object_info),
            web.get("/object_info/{node_class}", self.get_node_info),
            web.get("/workflow_templates", self.get_nothing),
            web.get("/i18n", self.get_nothing),
            web.get("/global_subgraphs", self.get_subgraphs),
            web.get("/global_subgraphs/{id}", self.get_subgraph),
            web.get("/node_replacements", self.get_replacements),
        ]

    def undoubled_routes(self) -> list[web.RouteDef]:
        """Routes that have no twin with or without /api."""
        assets = [web.route(method, path, self.refuse_assets) for method, path in ASSET_CALLS]
        return [*assets, web.get("/templates/{path:.*}", self.get_template)]

    async def get_index(self, request: web.Request) -> web.FileResponse:
        headers = {"Cache-Control": "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}
        return web.FileResponse(self._root / "index.html", headers=headers)

    async def get_extensions(self, request: web.Request) -> web.Response:
        found = glob.glob("extensions/**/*.js", root_dir=self._root, recursive=True)
        return web.json_response([*(f"/{path}" for path in found), *self._scripts])

    async def get_features(self, request: web.Request) -> web.Response:
        return web.json_response(FEATURES)

    async def get_object_info(self, request: web.Request) -> web.Response:
        return web.json_response(describe_all(self._folders))

    async def get_node_info(self, request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        info = {name: CATALOGUE[name].describe(self._folders)} if name in CATALOGUE else {}
        return web.json_response(info)

    async def get_nothing(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def get_replacements(self, request: web.Request) -> web.Response:
        return web.json_response(REPLACEMENTS)

    async def get_subgraphs(self, request: web.Request) -> web.Response:
        return web.json_response({each: _subgraph(name) for each, name in self._subgraphs.items()})

    async def get_subgraph(self, request: web.Request) -> web.Response:
        name = self._subgraphs.get(request.match_info["id"])
        return web.json_response(None if name is None else _subgraph(name) | {"data": json.dumps(_blueprint(name))})

    async def get_template(self, request: web.Request) -> web.Response:
        if request.match_info["path"] == "index.json":
            return web.json_response([])
        if request.match_info["path"] == "index_logo.json":
            return web.json_response({})
        raise web.HTTPNotFound

    async def refuse_assets(self, request: web.Request) -> web.Response:
        return web.json_response({"error": ASSETS_OFF}, status=503)

    async def get_system_stats(self, request: web.Request) -> web.Response:
        versions = [{"name": name, "installed": each, "required": each} for name, each in PACKAGES.items()]
        system: dict[str, Any] = {
            "os": sys.platform,
            "ram_total": MEMORY_BYTES,
            "ram_free": self._memory.free_bytes,
            "comfyui_version": VERSION,
            "required_frontend_version": PACKAGES["comfyui-frontend-package"],
            "installed_templates_version": PACKAGES["comfyui-workflow-templates"],
            "required_templates_version": PACKAGES["comfyui-workflow-templates"],
            "comfy_package_versions": versions,
            "python_version": sys.version,
            "pytorch_version": "none",
            "embedded_python": False,
            "deploy_environment": "local-git",
            "argv": self._arguments,
            "standin": "This is comfygate's stand-in for ComfyUI: it runs small image workflows, and no models.",
        }
        device: dict[str, Any] = {"name": "cpu", "type": "cpu", "index": None}
        device |= {f"{name}_total": MEMORY_BYTES for name in ("vram", "torch_vram")}
        device |= {f"{name}_free": self._memory.free_bytes for name in ("vram", "torch_vram")}
        return web.json_response({"system": system, "devices": [device]})


def _subgraph(name: str) -> dict[str, Any]:
    return {"source": "templates", "name": name, "info": {"node_pack": "comfyui"}}


def _blueprint(name: str) -> dict[str, Any]:
    """A workflow of one node, whose type is the subgraph defined beside it: the web UI takes nothing less for a blueprint."""
    each = str(uuid.uuid5(BLUEPRINT_NAMESPACE, name))
    picture = {"name": "image", "type": "IMAGE", "link": None}
    node = {
        "id": 1,
        "type": each,
        "pos": [0, 0],
        "size": [210, 80],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [picture],
        "outputs": [],
        "properties": {},
        "widgets_values": [],
    }
    definition = {
        "id": each,
        "version": 1,
        "revision": 0,
        "name": name,
        "state": {"lastGroupId": 0, "lastNodeId": 1, "lastLinkId": 0, "lastRerouteId": 0},
        "config": {},
        "inputNode": {"id": -10, "bounding": [-200, 0, 120, 60]},
        "outputNode": {"id": -20, "bounding": [400, 0, 120, 60]},
        "inputs": [{"id": str(uuid.uuid5(BLUEPRINT_NAMESPACE, f"{name} image")), "name": "image", "type": "IMAGE"}],
        "outputs": [],
        "widgets": [],
        "nodes": [],
        "groups": [],
        "links": [],
    }
    counts = {"revision": 0, "last_node_id": 1, "last_link_id": 0}
    return {**counts, "version": 0.4, "nodes": [node], "links": [], "definitions": {"subgraphs": [definition]}}


def newest_first(folder: str) -> list[str]:
    """Visible files of a folder itself, not of its subfolders."""
    entries = [entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
    return [entry.name for entry in sorted(entries, key=lambda entry: -entry.stat().st_mtime)]

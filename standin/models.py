"""Routes of models: folders, file names, header metadata and preview pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
from typing import Any

from aiohttp import web
from PIL import Image

from standin.folders import EXTENSIONS, WEIGHTS, Folders, is_within, keep_content_types

MAX_HEADER_BYTES = 1024 * 1024
UNLISTED = ("configs", "custom_nodes")


class ModelRoutes:
    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/embeddings", self.get_embeddings),
            web.get("/models", self.get_kinds),
            web.get("/models/{folder}", self.get_names),
            web.get("/view_metadata/{folder_name}", self.get_metadata),
            web.get("/experiment/models", self.get_folders),
            web.get("/experiment/models/{folder}", self.get_files),
            web.get("/experiment/models/preview/{folder}/{path_index}/{filename:.*}", self.get_preview),
        ]

    async def get_embeddings(self, request: web.Request) -> web.Response:
        return web.json_response([_without_extension(name) for name in self._folders.model_files("embeddings")])

    async def get_kinds(self, request: web.Request) -> web.Response:
        return web.json_response(list(self._folders.models))

    async def get_names(self, request: web.Request) -> web.Response:
        kind = request.match_info["folder"]
        if kind not in self._folders.models:
            return web.Response(status=404)
        return web.json_response(self._folders.model_files(kind))

    async def get_metadata(self, request: web.Request) -> web.Response:
        name = request.query.get("filename", "")
        path = self._folders.model_path(request.match_info["folder_name"], name) if name else None
        header = _header(path, MAX_HEADER_BYTES) if path is not None and name.endswith(".safetensors") else None
        if header is None or "__metadata__" not in header:
            return web.Response(status=404)
        return web.json_response(header["__metadata__"])

    async def get_folders(self, request: web.Request) -> web.Response:
        listed = [
            {"name": kind, "folders": roots, "extensions": sorted(EXTENSIONS.get(kind, WEIGHTS))}
            for kind, roots in self._folders.models.items()
            if kind not in UNLISTED
        ]
        return web.json_response(listed)

    async def get_files(self, request: web.Request) -> web.Response:
        roots = self._folders.models.get(request.match_info["folder"])
        if roots is None:
            return web.Response(status=404)
        return web.json_response([entry for index, root in enumerate(roots) for entry in _weights(root, index)])

    async def get_preview(self, request: web.Request) -> web.Response:
        roots = self._folders.models.get(request.match_info["folder"])
        name, index = request.match_info["filename"], request.match_info["path_index"]
        if roots is None:
            return web.Response(status=404)
        if not name or not index.lstrip("-").isdigit():
            return web.Response(status=400)
        if not 0 <= int(index) < len(roots):
            return web.Response(status=404)
        return _preview_reply(roots[int(index)], name)


def _without_extension(name: str) -> str:
    return os.path.splitext(name)[0]


def _preview_reply(root: str, name: str) -> web.Response:
    path = os.path.normpath(os.path.join(root, name))
    if not is_within(root, path):
        return web.Response(status=403)
    picture = _preview(path)
    if picture is None:
        return web.Response(status=404)
    return web.Response(body=picture, content_type="image/webp")


def _weights(root: str, index: int) -> list[dict[str, Any]]:
    found = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in WEIGHTS:
                path = os.path.join(folder, name)
                status = os.stat(path)
                entry = {"name": os.path.relpath(path, root), "pathIndex": index, "modified": status.st_mtime}
                found.append(entry | {"created": status.st_ctime, "size": status.st_size})
    return found


def _header(path: str, max_bytes: int) -> dict[str, Any] | None:
    """The JSON header of a safetensors file: a little-endian length of 8 bytes, then that much JSON."""
    with open(path, "rb") as source:
        (size,) = struct.unpack("<Q", source.read(8))
        if size > max_bytes:
            return None
        header: dict[str, Any] = json.JSONDecoder().decode(source.read(size).decode())
        return header


def _preview(path: str) -> bytes | None:
    """A picture beside the model, or the first cover in its header, as WebP. A header that is none raises."""
    stem, folder = os.path.splitext(path)[0], os.path.dirname(path)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    beside = [os.path.join(folder, name) for name in names if os.path.join(folder, name).startswith(f"{stem}.")]
    pictures: list[str | io.BytesIO] = [
        each for each in keep_content_types(beside, {"image"}) if os.path.splitext(each)[0] in (stem, f"{stem}.preview")
    ]
    pictures += _covers(next((each for each in beside if each.endswith(".safetensors")), None))
    try:
        with Image.open(pictures[0]) as opened:
            buffer = io.BytesIO()
            opened.save(buffer, format="WEBP")
            return buffer.getvalue()
    except (LookupError, OSError):
        return None


def _covers(path: str | None) -> list[io.BytesIO]:
    header = _header(path, 8 * MAX_HEADER_BYTES) if path is not None else None
    covers = (header or {}).get("__metadata__", {}).get("ssmd_cover_images")
    return [io.BytesIO(base64.b64decode(each)) for each in json.JSONDecoder().decode(covers)] if covers else []

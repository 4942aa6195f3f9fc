"""Routes of userdata, in single-user mode: everything is in user/default."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from standin.files import is_active, is_below
from standin.folders import Folders

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BAD_NAME = 'Invalid filename. Please avoid special characters like :\\/*?"<>|'


class UserDataRoutes:
    def __init__(self, folders: Folders, pool: Executor) -> None:
        self._pool = pool
        self._user = os.path.join(folders.user, "default")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/userdata", self._threaded(self._list_files)),
            web.get("/v2/userdata", self._threaded(self._list_everything)),
            web.get("/userdata/{file}", self._threaded(self._read)),
            web.post("/userdata/{file}", self.write),
            web.delete("/userdata/{file}", self._threaded(self._remove)),
            web.post("/userdata/{file}/move/{dest}", self._threaded(self._move)),
        ]

    def _threaded(self, work: Callable[[web.Request], web.StreamResponse]) -> Handler:
        """A handler that does its disk work in the pool and so leaves the loop alone."""

        async def handler(request: web.Request) -> web.StreamResponse:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, request)

        return handler

    def _path(self, name: str, *, makes_parents: bool = True) -> str | None:
        """The path of a name, decoded once more if a percent sign is left; None outside of the user's folder."""
        if "%" in name:
            name = unquote(name)
        path = os.path.abspath(os.path.join(self._user, name))
        if not is_below(self._user, path):
            return None
        if makes_parents and not os.path.exists(os.path.dirname(path)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def _named(self, request: web.Request, parameter: str = "file", *, must_exist: bool) -> str | web.Response:
        path = self._path(request.match_info[parameter])
        if path is None:
            return web.Response(status=403)
        if must_exist and not os.path.exists(path):
            return web.Response(status=404)
        return path

    def _list_files(self, request: web.Request) -> web.Response:
        query = request.query
        if not query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        path = self._path(query["dir"])
        if path is None:
            return web.Response(status=403, text="Invalid directory")
        if not os.path.exists(path):
            return web.Response(status=404, text="Directory not found")
        wants = {name: query.get(name, "").lower() == "true" for name in ("recurse", "full_info", "split")}
        found: list[Any] = []
        for file in _visible_files(path, recurses=wants["recurse"]):
            relative = os.path.relpath(file, path)
            if wants["full_info"]:
                found.append(_file_info(file, path))
            else:
                found.append([relative, *relative.split("/")] if wants["split"] else relative)
        return web.json_response(found)

    def _list_everything(self, request: web.Request) -> web.Response:
        asked = unquote(request.query.get("path", ""))
        path = self._path(asked, makes_parents=False) if asked else self._user
        if path is None:
            return web.Response(status=400, text="Invalid path requested")
        if not os.path.exists(path):
            if path == self._user:
                return web.json_response([])
            return web.Response(status=404, text="Requested path not found")
        if not os.path.isdir(path):
            return web.Response(status=400, text="Requested path is not a directory")
        entries = list(self._walk(path))
        entries.sort(key=lambda entry: (entry["type"] != "directory", entry["name"].lower()))
        return web.json_response(entries)

    def _walk(self, path: str) -> Iterator[dict[str, Any]]:
        for folder, folders, files in os.walk(path):
            for name in folders:
                relative = os.path.relpath(os.path.join(folder, name), self._user)
                yield {"name": name, "path": relative, "type": "directory"}
            for name in files:
                full = os.path.join(folder, name)
                status = os.stat(full)
                entry = {"name": name, "path": os.path.relpath(full, self._user), "type": "file"}
                yield entry | {"size": status.st_size, "modified": status.st_mtime}

    def _read(self, request: web.Request) -> web.StreamResponse:
        path = self._named(request, must_exist=True)
        if isinstance(path, web.Response):
            return path
        content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
        disposition = "attachment"
        if path == os.path.join(self._user, "user.css"):
            content_type, disposition = "text/css", "inline"
        elif is_active(content_type):
            content_type = "application/octet-stream"
        headers = {"Content-Type": content_type, "X-Content-Type-Options": "nosniff"}
        return web.FileResponse(path, headers=headers | {"Content-Disposition": disposition})

    async def write(self, request: web.Request) -> web.Response:
        path = self._named(request, must_exist=False)
        if isinstance(path, web.Response):
            return path
        if not _may_replace(request, path):
            return web.Response(status=409, text="File already exists")
        try:
            _replace(path, await request.read())
        except OSError:
            return web.Response(status=400, reason=BAD_NAME)
        return self._written(request, path)

    def _remove(self, request: web.Request) -> web.Response:
        path = self._named(request, must_exist=True)
        if isinstance(path, web.Response):
            return path
        os.remove(path)
        return web.Response(status=204)

    def _move(self, request: web.Request) -> web.Response:
        source = self._named(request, must_exist=True)
        if isinstance(source, web.Response):
            return source
        target = self._named(request, "dest", must_exist=False)
        if isinstance(target, web.Response):
            return target
        if not _may_replace(request, target):
            return web.Response(status=409, text="File already exists")
        shutil.move(source, target)
        return self._written(request, target)

    def _written(self, request: web.Request, path: str) -> web.Response:
        if request.query.get("full_info", "false").lower() == "true":
            return web.json_response(_file_info(path, self._user))
        return web.json_response(os.path.relpath(path, self._user))


def _may_replace(request: web.Request, path: str) -> bool:
    return request.query.get("overwrite", "true") != "false" or not os.path.exists(path)


def _replace(path: str, body: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as target:
            target.write(body)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _visible_files(path: str, *, recurses: bool) -> Iterator[str]:
    if not os.path.isdir(path):
        return
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")] if recurses else []
        yield from (os.path.join(folder, name) for name in files if not name.startswith("."))


def _file_info(path: str, root: str) -> dict[str, Any]:
    status = os.stat(path)
    return {
        "path": os.path.relpath(path, root),
        "size": status.st_size,
        "modified": int(status.st_mtime * 1000),
        "created": int(status.st_ctime * 1000),
    }

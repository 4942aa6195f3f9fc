"""Routes under /internal: logs, root listings and folder paths. They exist once, without /api."""

from __future__ import annotations

from aiohttp import web

from standin.engine import Engine
from standin.logs import SIZE
from standin.pages import newest_first


class InternalRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/logs", self.get_logs),
            web.get("/logs/raw", self.get_raw_logs),
            web.patch("/logs/subscribe", self.subscribe),
            web.get("/folder_paths", self.get_folder_paths),
            web.get("/files/{directory_type}", self.get_files),
        ]

    async def get_logs(self, request: web.Request) -> web.Response:
        return web.json_response("".join(f"{entry['t']} - {entry['m']}" for entry in self._engine.logs.entries))

    async def get_raw_logs(self, request: web.Request) -> web.Response:
        self._engine.logs.changed_size()
        return web.json_response({"entries": list(self._engine.logs.entries), "size": SIZE})

    async def subscribe(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["enabled"]:
            self._engine.logs.subscribers.add(body["clientId"])
        else:
            self._engine.logs.subscribers.discard(body["clientId"])
        return web.Response()

    async def get_folder_paths(self, request: web.Request) -> web.Response:
        return web.json_response(self._engine.folders.models)

    async def get_files(self, request: web.Request) -> web.Response:
        kind = request.match_info["directory_type"]
        root = self._engine.folders.by_type(kind)
        if root is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        return web.json_response([f"{name} [{kind}]" for name in newest_first(root)])

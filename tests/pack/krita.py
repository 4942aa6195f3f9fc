"""The routes and classes of the tooling nodes that Krita AI Diffusion needs, in the stand-in: as clients see them, and no more."""

from __future__ import annotations

import json

from aiohttp import web

from standin.folders import Folders
from standin.pack import Pack
from tests.pack.routes import GatePack
from tests.pack.standin import make_classes


def make_tooling_nodes() -> Pack:
    kept: list[GatePack] = []

    def routes(folders: Folders) -> list[web.RouteDef]:
        kept.append(pack := GatePack(lambda kind: f"{folders.base}/{kind}"))

        async def model_info(request: web.Request) -> web.Response:
            offset, limit = int(request.query.get("offset", "0")), int(request.query.get("limit", "1000"))
            names = [f"{request.match_info['folder']}/{index}.safetensors" for index in range(10)]
            info: dict[str, object] = {name: {"base_model": "sd15"} for name in names[offset : offset + limit]}
            return web.json_response(info | {"_meta": {"offset": offset, "count": len(info), "total": len(names)}})

        async def languages(request: web.Request) -> web.Response:
            return web.json_response([{"name": "German", "code": "de"}])

        async def subscribe(request: web.Request) -> web.Response:
            json.loads(await request.read())
            return web.json_response({"status": "success"})

        return [
            web.get("/api/etn/image/{id}", pack.get_bytes),
            web.put("/api/etn/image/{id}", pack.put_bytes),
            web.get("/api/etn/model_info/{folder}", model_info),
            web.get("/api/etn/languages", languages),
            web.post("/api/etn/workflow/subscribe", subscribe),
        ]

    specs, runners = make_classes(kept, "ETN_LoadImageCache", "ETN_SaveImageCache", "ETN_Wait")
    return Pack(routes, specs, runners, {"/extensions/comfyui-tooling-nodes/nodes.js": ""})

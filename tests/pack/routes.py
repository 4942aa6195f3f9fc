"""The routes of the pack, as authors of packs write them: they trust whoever calls. Runs in the stand-in and in a real ComfyUI; knows neither."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

SCRIPT = """import { app } from "../../scripts/app.js";
const list = () => fetch("/gate-pack/models?folder=loras");
const say = body => app.api.fetchApi(`/gate-pack/answer`, { method: "POST", body });
const closed = () => app.api.fetchApi('/gate-pack/not-in-any-row');
app.registerExtension({ name: "gate-pack", list, say, closed });
"""


class GatePack:
    """What the pack keeps for all clients alike. folder_of: ComfyUI's folder by its `type`, and "models"."""

    def __init__(self, folder_of: Callable[[str], str]) -> None:
        self._folder_of = folder_of
        self.kept: dict[str, tuple[bytes, str]] = {}
        self.answers: dict[str, str] = {}
        self.answered = threading.Event()

    def keep(self, data: bytes) -> str:
        """Bytes that a node made, under an id of the server's own."""
        key = uuid.uuid4().hex
        self.kept[key] = (data, "image/png")
        return key

    def wait_for(self, node_id: str, is_stopped: Callable[[], None]) -> str:
        """The answer to this node, whoever sends it. is_stopped: raises when the job is interrupted."""
        while node_id not in self.answers:
            self.answered.clear()
            self.answered.wait(0.05)
            is_stopped()
        return self.answers.pop(node_id)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/gate-pack/files/{file}", self.get_file),
            web.get("/gate-pack/models", self.get_models),
            web.get("/gate-pack/picture/{name}", self.get_picture),
            web.get("/gate-pack/view", self.view),
            web.get("/gate-pack/probe", self.probe),
            web.get("/gate-pack/bytes/{id}", self.get_bytes),
            web.put("/gate-pack/bytes/{id}", self.put_bytes),
            web.post("/gate-pack/answer", self.answer),
            web.post("/gate-pack/answer-form", self.answer_form),
            web.get("/gate-pack/restart", self.restart),
            web.post("/gate-pack/restart", self.restart),
            web.get("/gate-pack/disk", self.disk),
        ]

    async def get_file(self, request: web.Request) -> web.Response:
        text = f"export const file = {request.match_info['file']!r}, query = {request.query_string!r};\n"
        return web.Response(text=text, content_type="application/javascript")

    async def get_models(self, request: web.Request) -> web.Response:
        """Says far too much: where models lie, and what lies in everybody's input folder."""
        folder = request.query.get("folder", "loras")
        root = os.path.join(self._folder_of("models"), folder)
        inputs = Path(self._folder_of("input"))
        files = [str(path) for path in sorted(inputs.rglob("*")) if path.is_file()]
        relative = [os.path.relpath(path, inputs) for path in files]
        return web.json_response(
            {"folder": folder, "path": root, "inputs": files, "names": relative, "count": len(files)}
        )

    async def get_picture(self, request: web.Request) -> web.StreamResponse:
        """A model's picture, named as `folder/name` in one segment."""
        path = os.path.join(self._folder_of("models"), request.match_info["name"])
        if not os.path.isfile(path):
            return web.json_response({"error": f"[Errno 2] No such file: '{path}'"}, status=404)
        return web.FileResponse(path)

    def _path_of(self, request: web.Request) -> str | None:
        if "filename" not in request.query:
            return None
        kind = request.query.get("type", "output")
        root = "/" if kind == "path" else self._folder_of(kind)
        path = os.path.join(root, request.query.get("subfolder", ""), request.query["filename"])
        return path if os.path.isfile(path) else None

    async def view(self, request: web.Request) -> web.StreamResponse:
        path = self._path_of(request)
        return web.Response(status=204) if path is None else web.FileResponse(path)

    async def probe(self, request: web.Request) -> web.Response:
        path = self._path_of(request)
        return web.json_response({} if path is None else {"path": path, "size": os.path.getsize(path)})

    async def get_bytes(self, request: web.Request) -> web.Response:
        found = self.kept.get(request.match_info["id"])
        if found is None:
            return web.json_response({"error": f"Nothing under {request.match_info['id']}"}, status=404)
        return web.Response(body=found[0], content_type=found[1])

    async def put_bytes(self, request: web.Request) -> web.Response:
        """Keeps the first bytes that are put under an id, and serves them to all."""
        key = request.match_info["id"]
        if key in self.kept:
            await request.release()
            return web.json_response({"status": "cached"})
        self.kept[key] = (await request.read(), request.content_type)
        return web.json_response({"status": "success"}, status=201)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._hear(str(body["node"]), str(body["answer"]))
        return web.json_response({"heard": body["answer"]})

    async def answer_form(self, request: web.Request) -> web.Response:
        form = await request.post()
        self._hear(str(form["id"]), str(form["message"]))
        return web.json_response({})

    def _hear(self, node_id: str, answer: str) -> None:
        self.answers[node_id] = answer
        self.answered.set()

    async def restart(self, request: web.Request) -> web.Response:
        return web.json_response({"restarted": (await request.read()).decode()})

    async def disk(self, request: web.Request) -> web.Response:
        return web.json_response(sorted(os.listdir(self._folder_of("output"))))

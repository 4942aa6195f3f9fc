"""Routes of execution: prompts, queue, interrupt. Bodies are trusted to have the right types; wrong ones are mostly
answered with 500, as in ComfyUI."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from aiohttp import web

from standin.engine import Engine
from standin.graph import Graph
from standin.jobs import check_job_id
from standin.replacements import replace_classes
from standin.validation import refusal, validate_prompt

CREDENTIALS = ("auth_token_comfy_org", "api_key_comfy_org")
BAD_ID = (
    "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one"
)


class JobRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/prompt", self.get_prompt),
            web.post("/prompt", self.post_prompt),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.post_queue),
            web.post("/interrupt", self.interrupt),
            web.post("/free", self.free),
        ]

    async def get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self._engine.events.queue_info())

    async def post_prompt(self, request: web.Request) -> web.Response:
        self._engine.log("got prompt")
        body = await request.json()
        number = self._number(body)
        if "prompt" not in body:
            text = "No prompt provided"
            return _refused(refusal("no_prompt", text, text))
        prompt_id = body.get("prompt_id")
        if prompt_id is None:
            prompt_id = str(uuid.uuid4())
        else:
            try:
                check_job_id(prompt_id)
            except ValueError:
                return _refused(refusal("invalid_prompt_id", "prompt_id must be a valid UUID", BAD_ID))
        return self._accept(body, number, prompt_id, request)

    def _accept(self, body: dict[str, Any], number: Any, prompt_id: str, request: web.Request) -> web.Response:
        graph: Graph = body["prompt"]
        replace_classes(graph)
        verdict = validate_prompt(graph, self._engine.folders, body.get("partial_execution_targets"))
        extra_data = self._extra_data(body, request)
        if verdict.error is not None:
            return _refused(verdict.error, verdict.node_errors)
        sensitive = {name: extra_data.pop(name) for name in CREDENTIALS if name in extra_data}
        extra_data["create_time"] = int(time.time() * 1000)
        self._engine.queue.put((number, prompt_id, graph, extra_data, verdict.outputs, sensitive))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def _number(self, body: Any) -> Any:
        if "number" in body:
            return float(body["number"])
        number = self._engine.next_number()
        return -number if value_of(body, "front") else number

    def _extra_data(self, body: dict[str, Any], request: web.Request) -> dict[str, Any]:
        extra_data: dict[str, Any] = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        source = request.headers.get("Comfy-Usage-Source")
        if "comfy_usage_source" not in extra_data and source:
            extra_data["comfy_usage_source"] = source
        return extra_data

    async def get_queue(self, request: web.Request) -> web.Response:
        running, pending = self._engine.queue.snapshot()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if value_of(body, "clear"):
            self._engine.queue.wipe()
        for prompt_id in value_of(body, "delete", ()):
            self._engine.queue.delete(prompt_id)
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self._engine.queue.is_running(prompt_id):
            self._engine.interrupt()
        return web.Response()

    async def free(self, request: web.Request) -> web.Response:
        body = await request.json()
        for name in ("unload_models", "free_memory"):
            if body.get(name, False):
                self._engine.queue.set_flag(name, body[name])
        return web.Response()


def value_of(body: Any, name: str, default: Any = None) -> Any:
    # Not get(): a JSON list is a body that ComfyUI accepts, and that asks for nothing.
    if name not in body:
        return default
    return body[name]


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)

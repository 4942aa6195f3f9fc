"""Routes of execution: prompts, queue, history, jobs, interrupt. Bodies are trusted to have the right types; wrong ones are mostly
answered with 500, as in ComfyUI."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from aiohttp import web

from standin.engine import Engine
from standin.graph import Graph
from standin.jobs import BadListing, check_job_id, from_history, from_queue, list_jobs
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
            web.get("/history", self.get_history),
            web.get("/history/{prompt_id}", self.get_history_entry),
            web.post("/history", self.post_history),
            web.get("/api/jobs", self.get_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
            web.post("/api/jobs/cancel", self.cancel_jobs),
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
        return -number if _value(body, "front") else number

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
        if _value(body, "clear"):
            self._engine.queue.wipe()
        for prompt_id in _value(body, "delete", ()):
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

    async def get_history(self, request: web.Request) -> web.Response:
        max_items = request.query.get("max_items")
        offset = request.query.get("offset")
        entries = self._engine.queue.read_history(
            None if max_items is None else int(max_items), -1 if offset is None else int(offset)
        )
        return web.json_response(entries)

    async def get_history_entry(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["prompt_id"]
        entry = self._engine.queue.history.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if _value(body, "clear"):
            self._engine.queue.wipe_history()
        for prompt_id in _value(body, "delete", ()):
            self._engine.queue.history.pop(prompt_id, None)
        return web.Response()

    async def get_jobs(self, request: web.Request) -> web.Response:
        running, pending = self._engine.queue.snapshot()
        try:
            return web.json_response(list_jobs(running, pending, self._engine.queue.read_history(), request.query))
        except BadListing as error:
            return web.json_response({"error": str(error)}, status=400)

    async def get_job(self, request: web.Request) -> web.Response:
        job_id = request.match_info["job_id"]
        entry = self._engine.queue.history.get(job_id)
        if entry is not None:
            return web.json_response(from_history(job_id, entry, is_complete=True))
        running, pending = self._engine.queue.snapshot()
        for items, status in ((running, "in_progress"), (pending, "pending")):
            for item in items:
                if item[1] == job_id:
                    return web.json_response(from_queue(item, status))
        return web.json_response({"error": "Job not found"}, status=404)

    async def cancel_job(self, request: web.Request) -> web.Response:
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return web.json_response({"error": "Request body must be valid JSON"}, status=400)
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return web.json_response({"error": "job_ids must be a list"}, status=400)
        bad = [each if isinstance(each, str) else repr(each) for each in job_ids if not _is_job_id(each)]
        if bad:
            return web.json_response({"error": "job_ids contains invalid id(s)", "invalid_ids": bad}, status=400)
        return web.json_response({"cancelled": True in [self._cancel(each) for each in job_ids]})

    def _cancel(self, job_id: str) -> bool:
        if self._engine.queue.is_running(job_id):
            self._engine.interrupt()
            return True
        return self._engine.queue.delete(job_id)


def _value(body: Any, name: str, default: Any = None) -> Any:
    # Not get(): a JSON list is a body that ComfyUI accepts, and that asks for nothing.
    if name not in body:
        return default
    return body[name]


def _is_job_id(value: object) -> bool:
    try:
        return bool(check_job_id(value))
    except ValueError:
        return False


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)

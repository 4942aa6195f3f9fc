"""Routes of what ran and runs: the history, and the list of jobs."""

from __future__ import annotations

import json

from aiohttp import web

from standin.engine import Engine
from standin.jobroutes import value_of
from standin.jobs import BadListing, check_job_id, from_history, from_queue, list_jobs


class HistoryRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/history", self.get_history),
            web.get("/history/{prompt_id}", self.get_history_entry),
            web.post("/history", self.post_history),
        ]

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
        if value_of(body, "clear"):
            self._engine.queue.wipe_history()
        for prompt_id in value_of(body, "delete", ()):
            self._engine.queue.history.pop(prompt_id, None)
        return web.Response()


class JobListRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/jobs", self.get_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
            web.post("/api/jobs/cancel", self.cancel_jobs),
        ]

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


def _is_job_id(value: object) -> bool:
    try:
        return bool(check_job_id(value))
    except ValueError:
        return False

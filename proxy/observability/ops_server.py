"""The ops listener: health, readiness and metrics. On an address of its own, so that no path of the public one skips authentication."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.http.request import Request
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.observability.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()


async def _nothing() -> None:
    return


@dataclass(slots=True)
class Ops:
    """It is ready while one ComfyUI is well. refresh: brings gauges up to date before a scrape."""

    metrics: Metrics
    queue_watchers: QueueWatchers
    refresh: Callable[[], Awaitable[None]] = _nothing
    is_draining: bool = False

    async def handle(self, request: Request) -> None:
        """GET /healthz: the process lives. GET /readyz: it can serve. GET /metrics."""
        answer = await self._answer(request)
        with suppress(ConnectionResetError):
            await request.send(answer.status, answer.fields, answer.body)

    async def _answer(self, request: Request) -> _Answer:
        if request.method not in ("GET", "HEAD"):
            return _Answer(405, b"", (("Allow", "GET, HEAD"),))
        match request.raw_path.partition("?")[0]:
            case "/healthz":
                return _json(200, {"status": "alive"})
            case "/readyz":
                return self._ready()
            case "/metrics":
                await self.refresh()
                body = await asyncio.to_thread(self.metrics.render)
                return _Answer(200, body, (("Content-Type", CONTENT_TYPE_LATEST),))
            case _:
                return _Answer(404)

    def _ready(self) -> _Answer:
        if self.is_draining:
            return _json(503, {"status": "stopping", "what_to_do": "The gate is shutting down."})
        there = [watcher for watcher in self.queue_watchers if watcher.is_connected]
        if not there:
            return _json(
                503, {"status": "upstream-down", "what_to_do": "Start ComfyUI, or correct upstream.url in config.toml."}
            )
        read = [watcher for watcher in there if not watcher.is_stale]
        age_s = round((read or there)[0].last_sync_age_s, 1)
        if not read:
            return _json(
                503,
                {
                    "status": "queue-unread",
                    "what_to_do": "ComfyUI answers, but not what its queue is: jobs are not seen to end. The log says why.",
                    "last_sync_age_seconds": age_s,
                },
            )
        if all(watcher.is_worker_stuck for watcher in read):
            return _json(
                503,
                {"status": "worker-stuck", "what_to_do": "ComfyUI has jobs waiting and runs none: restart ComfyUI."},
            )
        return _json(200, {"status": "ready", "last_sync_age_seconds": age_s})


def _json(status: int, value: object) -> _Answer:
    return _Answer(status, orjson.dumps(value), (("Content-Type", "application/json"),))

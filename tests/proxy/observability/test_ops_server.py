"""The ops listener: alive, ready or not and why, and metrics."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.jobs import queue_watcher
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.observability.metrics import Metrics
from proxy.observability.ops_server import Ops
from tests.harness import Running


async def ask(gate: Running, path: str, method: str = "GET") -> tuple[int, Any]:
    async with gate.session.request(method, gate.ops_url + path) as answer:
        body = await answer.read()
        is_json = body and answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else body.decode()


async def test_alive_and_ready(gate: Running) -> None:
    assert await ask(gate, "/healthz") == (200, {"status": "alive"})
    code, body = await ask(gate, "/readyz")
    assert (code, body["status"]) == (200, "ready")
    assert 0 <= body["last_sync_age_seconds"] < 60
    assert await ask(gate, "/readyz", "HEAD") == (200, "")


@pytest.mark.parametrize(
    ("is_draining", "is_connected", "is_stuck", "status"),
    [(True, False, True, "stopping"), (False, False, True, "upstream-down"), (False, True, True, "worker-stuck")],
)
async def test_what_is_not_ready_says_what_to_do(
    gate: Running,
    monkeypatch: pytest.MonkeyPatch,
    is_draining: bool,
    is_connected: bool,
    is_stuck: bool,
    status: str,
) -> None:
    await gate.gate.dependencies.queue_watchers.first.stop()
    gate.gate._ops.is_draining = is_draining
    gate.gate.dependencies.queue_watchers.first.is_connected = is_connected
    monkeypatch.setattr(QueueWatcher, "is_worker_stuck", is_stuck)
    code, body = await ask(gate, "/readyz")
    assert (code, body["status"]) == (503, status)
    assert body["what_to_do"].endswith(".")
    assert await ask(gate, "/healthz") == (200, {"status": "alive"}), "it lives all the same"


async def test_a_gate_that_does_not_see_jobs_end_is_not_ready(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_watcher, "STALE_AFTER_S", -1.0)
    code, body = await ask(gate, "/readyz")
    assert (code, body["status"]) == (503, "queue-unread")
    assert "comfygate_observer_last_sync_age_seconds" in (await ask(gate, "/metrics"))[1]


async def test_metrics_are_fresh(gate: Running) -> None:
    await gate.status("GET", "/queue", "alice")
    status, text = await ask(gate, "/metrics")
    assert status == 200
    assert "comfygate_upstream_up 1.0" in text
    assert 'comfygate_requests_total{method="GET",route="GET /queue",status="200",tenant="alice"} 1.0' in text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/gate/me", 404), ("GET", "/queue", 404),
                                                        ("POST", "/healthz", 405), ("DELETE", "/metrics", 405)])  # fmt: skip
async def test_nothing_else(gate: Running, method: str, path: str, status: int) -> None:
    assert await ask(gate, path, method) == (status, "")


async def test_there_need_be_no_gauges_to_refresh(gate: Running) -> None:
    await Ops(Metrics(), gate.gate.dependencies.queue_watchers).refresh()

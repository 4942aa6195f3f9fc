"""The ops listener: alive, ready, metrics; nothing else, and nothing of it on the public address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy import observer as observer_module
from proxy.standin import StandIn
from tests.harness import Running, running_gate

NOWHERE = "http://127.0.0.1:9"


async def ask(gate: Running, path: str, method: str = "GET") -> tuple[int, Any, str]:
    async with gate.session.request(method, gate.ops_url + path) as response:
        is_json = response.content_type == "application/json" and method == "GET"
        return response.status, await response.json() if is_json else None, await response.text()


async def test_a_gate_before_a_comfyui_is_ready(gate: Running) -> None:
    assert (await ask(gate, "/healthz"))[:2] == (200, {"status": "alive"})
    assert (await ask(gate, "/readyz"))[:2] == (200, {"status": "ready"})
    assert await ask(gate, "/readyz", "HEAD") == (200, None, "")


async def test_a_gate_without_a_comfyui_is_alive_and_says_what_to_do(tmp_path: Path) -> None:
    async with running_gate(tmp_path, NOWHERE, wait=False) as gate:
        assert (await ask(gate, "/healthz"))[0] == 200
        status, body, _ = await ask(gate, "/readyz")
        assert (status, body["status"]) == (503, "upstream-down")
        assert "upstream.url" in body["what_to_do"]
        assert "comfygate_upstream_up 0.0" in (await ask(gate, "/metrics"))[2]


async def test_it_is_ready_when_comfyui_comes(tmp_path: Path) -> None:
    comfy = StandIn(tmp_path / "comfyui", frontend=False)
    await comfy.start()
    port = comfy.port
    await comfy.stop()
    async with running_gate(tmp_path, f"http://127.0.0.1:{port}", wait=False) as gate:
        assert (await ask(gate, "/readyz"))[0] == 503
        await comfy.start(port=port)
        try:
            await gate.gate.services.observer.is_settled.wait()
            assert (await ask(gate, "/readyz"))[0] == 200
        finally:
            await comfy.stop()


async def test_a_stuck_worker_is_not_ready(gate: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_module.Observer, "is_worker_stuck", True)
    status, body, _ = await ask(gate, "/readyz")
    assert (status, body["status"]) == (503, "worker-stuck")
    assert "restart ComfyUI" in body["what_to_do"]
    assert "comfygate_worker_stuck 1.0" in (await ask(gate, "/metrics"))[2]


async def test_a_gate_that_stops_is_not_ready(gate: Running) -> None:
    gate.gate._ops.is_draining = True
    status, body, _ = await ask(gate, "/readyz")
    assert (status, body["status"]) == (503, "stopping")
    assert (await ask(gate, "/healthz"))[0] == 200


async def test_metrics_count_what_happened(gate: Running) -> None:
    await gate.status("GET", "/features")
    await gate.status("GET", "/features", None)
    await gate.status("GET", "/wp-admin/setup.php", None)
    async with gate.session.ws_connect(gate.address("/ws"), headers=gate.headers("admin")):
        status, _, text = await ask(gate, "/metrics")
    assert status == 200
    for line in (
        'comfygate_requests_total{method="GET",route="GET /features",status="200",tenant="alice"} 1.0',
        'comfygate_requests_total{method="GET",route="GET /features",status="401",tenant="-"} 1.0',
        'comfygate_requests_total{method="GET",route="unlisted",status="401",tenant="-"} 1.0',
        'comfygate_refusals_total{reason="credential-missing"} 2.0',
        "comfygate_upstream_up 1.0",
    ):
        assert line in text
    assert "wp-admin" not in text
    assert gate.keys["admin"] not in text


@pytest.mark.parametrize("path", ["/", "/metrics/", "/readyz/x", "/queue", "/gate/health", "//metrics"])
async def test_nothing_else_is_there(gate: Running, path: str) -> None:
    assert (await ask(gate, path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_it_is_only_read(gate: Running, method: str) -> None:
    assert (await ask(gate, "/metrics", method))[0] == 405


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_it_is_not_on_the_public_address(gate: Running, path: str) -> None:
    assert await gate.status("GET", path, None) == 401
    assert await gate.status("GET", path, "admin") == 404

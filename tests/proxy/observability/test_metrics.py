"""What is counted, under labels that clients cannot choose."""

from __future__ import annotations

from typing import Any

from policy.principal import Principal, TenantId
from proxy.http.request_record import RequestRecord
from proxy.observability.metrics import Metrics

ALICE = Principal("a", TenantId("alice"))


def record(**more: Any) -> RequestRecord:
    return RequestRecord("GET", "id", "192.0.2.1", **{"route": "GET /queue", "status": 200, **more})


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_counts_by_route_method_status_and_tenant() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.count(record(principal=ALICE, upstream_s=0.5))
    metrics.count(record(status=401, reason="key-unknown"))
    labels = {"route": "GET /queue", "method": "GET"}
    assert value(metrics, "comfygate_requests_total", status="200", tenant="alice", **labels) == 2
    assert value(metrics, "comfygate_requests_total", status="401", tenant="-", **labels) == 1
    assert value(metrics, "comfygate_refusals_total", reason="key-unknown") == 1
    assert value(metrics, "comfygate_gate_seconds_count", route="GET /queue") == 3
    assert value(metrics, "comfygate_upstream_seconds_count", route="GET /queue") == 2
    assert value(metrics, "comfygate_upstream_seconds_sum", route="GET /queue") == 1.0


def test_time_in_the_gate_is_never_negative() -> None:
    metrics = Metrics()
    metrics.count(record(upstream_s=1e6))
    assert value(metrics, "comfygate_gate_seconds_sum", route="GET /queue") == 0


def test_two_gates_do_not_share_counters() -> None:
    one, other = Metrics(), Metrics()
    one.count(record())
    assert b"comfygate_requests_total{" in one.render()
    assert b"comfygate_requests_total{" not in other.render()


def test_renders_the_process_and_the_gauges() -> None:
    text = Metrics().render().decode()
    for name in (
        "process_resident_memory_bytes",
        "comfygate_websockets",
        "comfygate_upstream_up",
        "comfygate_worker_stuck",
    ):
        assert f"\n{name} " in text

"""Requests are counted as the Prometheus client itself would count them, and may be read while they are."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from policy.principal import Principal, TenantId
from proxy.http.request_record import RequestRecord
from proxy.observability.metrics import Metrics
from proxy.observability.request_counts import BOUNDS_S, NOBODY

TENANTS = {name: Principal("k", TenantId(name)) for name in ("alice", "mallory")}
SECONDS = st.one_of(st.just(0.0), st.sampled_from(BOUNDS_S), st.floats(0, 200))
RECORDS = st.fixed_dictionaries(
    {
        "route": st.sampled_from(["GET /queue", "POST /prompt", "unlisted"]),
        "method": st.sampled_from(["GET", "POST"]),
        "status": st.sampled_from([101, 200, 404]),
        "principal": st.sampled_from([None, *TENANTS.values()]),
        "elapsed_s": SECONDS,
        "upstream_s": SECONDS,
        "received_bytes": st.integers(0, 10**9),
        "sent_bytes": st.integers(0, 10**9),
    }
)
OURS = ("comfygate_requests", "comfygate_gate_", "comfygate_upstream_seconds", "comfygate_received", "comfygate_sent")


class Reference:
    """The client's own counters and histograms."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        labels = ("route", "method", "status", "tenant")
        self.requests = Counter("comfygate_requests", "Requests answered.", labels, registry=registry)
        self.gate = self._histogram("gate_seconds", "Time of a request without the wait for ComfyUI.")
        self.upstream = self._histogram("upstream_seconds", "Time until ComfyUI began to answer.")
        self.received = Counter("comfygate_received_bytes", "Bodies of requests.", ("tenant",), registry=registry)
        self.sent = Counter("comfygate_sent_bytes", "Bodies of answers.", ("tenant",), registry=registry)

    def _histogram(self, name: str, words: str) -> Histogram:
        return Histogram(f"comfygate_{name}", words, ("route",), buckets=BOUNDS_S, registry=self.registry)

    def count(self, record: RequestRecord) -> None:
        tenant = record.principal.tenant if record.principal else NOBODY
        self.requests.labels(record.route, record.method, str(record.status), tenant).inc()
        if record.status != 101:
            self.gate.labels(record.route).observe(max(0.0, record.elapsed_s - record.upstream_s))
            upstream = self.upstream.labels(record.route)
            if record.upstream_s:
                upstream.observe(record.upstream_s)
        if record.received_bytes or record.sent_bytes:
            self.received.labels(tenant).inc(record.received_bytes)
            self.sent.labels(tenant).inc(record.sent_bytes)


def lines(text: bytes) -> list[str]:
    """Without the moments at which the series began."""
    found = [line.partition(" ") for line in text.decode().splitlines() if any(name in line for name in OURS)]
    return sorted(f"{name} {'a moment' if '_created' in name and name != '#' else value}" for name, _, value in found)


@given(st.lists(RECORDS, max_size=20))
def test_counts_as_the_client_library_does(fields: list[dict[str, Any]]) -> None:
    metrics, reference = Metrics(), Reference()
    for each in fields:
        record = RequestRecord(request_id="id", client="192.0.2.1", **each)
        metrics.count(record)
        reference.count(record)
    assert lines(metrics.render()) == lines(generate_latest(reference.registry))


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


@pytest.mark.usefixtures("busy_threads")
def test_new_series_may_begin_during_a_scrape() -> None:
    metrics, is_over = Metrics(), threading.Event()
    failures: list[BaseException] = []

    def scrape() -> None:
        try:
            while not is_over.is_set():
                list(metrics.requests.collect())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(3000):
        metrics.count(RequestRecord("GET", "id", "192.0.2.1", route=f"GET /{number}", status=200, sent_bytes=1))
    is_over.set()
    thread.join()
    assert not failures
    assert metrics.registry.get_sample_value("comfygate_sent_bytes_total", {"tenant": NOBODY}) == 3000

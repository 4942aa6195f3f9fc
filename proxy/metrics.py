"""What the gate counts. Label values come from the route table, the configuration and fixed words, never from clients."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from proxy.exchange import Exchange

NOBODY: Final = "-"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "comfygate_requests",
            "Requests answered.",
            ("route", "method", "status", "tenant"),
            registry=self.registry,
        )
        self.gate_seconds = Histogram(
            "comfygate_gate_seconds",
            "Time of a request without the wait for ComfyUI.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.upstream_seconds = Histogram(
            "comfygate_upstream_seconds",
            "Time until ComfyUI began to answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refusals = Counter(
            "comfygate_refusals", "Requests refused, by reason.", ("reason",), registry=self.registry
        )
        self.websockets = Gauge("comfygate_websockets", "Open WebSockets of clients.", registry=self.registry)
        self.upstream_up = Gauge(
            "comfygate_upstream_up", "1 while the gate is connected to ComfyUI.", registry=self.registry
        )
        self.worker_stuck = Gauge(
            "comfygate_worker_stuck", "1 while ComfyUI has jobs waiting and runs none.", registry=self.registry
        )
        self.config_reloads = Counter(
            "comfygate_config_reloads", "Configurations read, by result.", ("result",), registry=self.registry
        )
        self._bound: dict[tuple[str, str, int, str], Counter] = {}
        self._times: dict[str, tuple[Histogram, Histogram]] = {}

    def count(self, exchange: Exchange) -> None:
        tenant = exchange.principal.tenant if exchange.principal else NOBODY
        key = (exchange.route, exchange.method, exchange.status, tenant)
        counter = self._bound.get(key)
        if counter is None:
            counter = self._bound[key] = self.requests.labels(key[0], key[1], str(key[2]), key[3])
        counter.inc()
        times = self._times.get(exchange.route)
        if times is None:
            times = (self.gate_seconds.labels(exchange.route), self.upstream_seconds.labels(exchange.route))
            self._times[exchange.route] = times
        times[0].observe(max(0.0, exchange.elapsed_s - exchange.upstream_s))
        if exchange.upstream_s:
            times[1].observe(exchange.upstream_s)
        if exchange.reason:
            self.refusals.labels(exchange.reason).inc()

    def render(self) -> bytes:
        """The text format; slow with many series, so it is run in a thread."""
        return generate_latest(self.registry)

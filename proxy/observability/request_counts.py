"""What is counted of every request: plain numbers while it is answered, and series only at a scrape."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from proxy.http.request_record import RequestRecord

NOBODY: Final = "-"
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)
_NAMES: Final = (*(str(bound) for bound in BOUNDS_S), "+Inf")


class _Times:
    """A histogram. counts: of each bucket alone, the last one without a bound."""

    __slots__ = ("counts", "created_s", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_NAMES)
        self.sum_s = 0.0
        self.created_s = time.time()

    def add_to(self, family: HistogramMetricFamily, route: str) -> None:
        total, buckets = 0, []
        for name, count in zip(_NAMES, self.counts[:], strict=True):
            total += count
            buckets.append((name, float(total)))
        family.add_metric([route], buckets, self.sum_s)
        family.samples.append(Sample(f"{family.name}_created", {"route": route}, self.created_s))


class _OfRoute:
    __slots__ = ("gate", "upstream")

    def __init__(self) -> None:
        self.gate = _Times()
        self.upstream = _Times()

    def observe(self, elapsed_s: float, upstream_s: float) -> None:
        """upstream_s: 0 where ComfyUI was not asked."""
        gate, gate_s = self.gate, elapsed_s - upstream_s if elapsed_s > upstream_s else 0.0
        gate.counts[bisect_left(BOUNDS_S, gate_s)] += 1
        gate.sum_s += gate_s
        if upstream_s:
            upstream = self.upstream
            upstream.counts[bisect_left(BOUNDS_S, upstream_s)] += 1
            upstream.sum_s += upstream_s


class _OfTenant:
    """Bytes of bodies. created_s: of the first one, 0 before."""

    __slots__ = ("created_s", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.received_bytes = self.sent_bytes = 0
        self.created_s = 0.0


class _Kind:
    """Requests of one route, method, status and tenant."""

    __slots__ = ("count", "created_s", "of_route", "of_tenant")

    def __init__(self, of_route: _OfRoute | None, of_tenant: _OfTenant) -> None:
        self.count = 0
        self.created_s = time.time()
        self.of_route = of_route
        self.of_tenant = of_tenant


class RequestCounts(Collector):
    """`add` is called on the event loop, `collect` in any thread: it reads copies, and nothing is ever taken back to zero."""

    LABELS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "comfygate_requests": ("route", "method", "status", "tenant"),
        "comfygate_gate_seconds": ("route",),
        "comfygate_upstream_seconds": ("route",),
        "comfygate_received_bytes": ("tenant",),
        "comfygate_sent_bytes": ("tenant",),
    }

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, int, str], _Kind] = {}
        self._routes: dict[str, _OfRoute] = {}
        self._tenants: dict[str, _OfTenant] = {}

    def add(self, record: RequestRecord, tenant: str) -> None:
        """tenant: NOBODY where it is not known."""
        key = (record.route, record.method, record.status, tenant)
        kind = self._kinds.get(key) or self._new_kind(key)
        kind.count += 1
        if kind.of_route is not None:
            kind.of_route.observe(record.elapsed_s, record.upstream_s)
        if record.received_bytes or record.sent_bytes:
            of_tenant = kind.of_tenant
            if not of_tenant.created_s:
                of_tenant.created_s = time.time()
            of_tenant.received_bytes += record.received_bytes
            of_tenant.sent_bytes += record.sent_bytes

    def _new_kind(self, key: tuple[str, str, int, str]) -> _Kind:
        route, _, status, tenant = key
        # A WebSocket lasts as long as its client likes: that is no latency.
        of_route = None if status == 101 else self._routes.setdefault(route, _OfRoute())
        kind = self._kinds[key] = _Kind(of_route, self._tenants.setdefault(tenant, _OfTenant()))
        return kind

    def collect(self) -> Iterator[Metric]:
        """In a thread of its own, while requests are counted: tables are copied in one step, in which nobody adds to them."""
        requests = _counter("comfygate_requests", "Requests answered.")
        for (route, method, status, tenant), kind in self._kinds.copy().items():
            requests.add_metric((route, method, str(status), tenant), kind.count, kind.created_s)
        yield requests
        yield from self._times()
        yield from self._bytes()

    def _times(self) -> Iterator[Metric]:
        gate = _histogram("comfygate_gate_seconds", "Time of a request without the wait for ComfyUI.")
        upstream = _histogram("comfygate_upstream_seconds", "Time until ComfyUI began to answer.")
        for route, times in self._routes.copy().items():
            times.gate.add_to(gate, route)
            times.upstream.add_to(upstream, route)
        yield gate
        yield upstream

    def _bytes(self) -> Iterator[Metric]:
        received = _counter("comfygate_received_bytes", "Bodies of requests.")
        sent = _counter("comfygate_sent_bytes", "Bodies of answers.")
        for tenant, of_tenant in self._tenants.copy().items():
            if of_tenant.created_s:
                received.add_metric((tenant,), of_tenant.received_bytes, of_tenant.created_s)
                sent.add_metric((tenant,), of_tenant.sent_bytes, of_tenant.created_s)
        yield received
        yield sent


def _counter(name: str, words: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, words, labels=RequestCounts.LABELS[name])


def _histogram(name: str, words: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, words, labels=RequestCounts.LABELS[name])

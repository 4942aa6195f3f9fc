"""What the gate counts. Label values come from the route table, the configuration and fixed words, never from clients."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from proxy.config.identity import KeySettings
from proxy.http.request_record import RequestRecord
from proxy.jobs.registry import Job, JobState, Outcome
from proxy.websocket.connections import ConnectionRegistry

NOBODY: Final = "-"
OTHER: Final = "other"
MAX_NODE_CLASSES: Final = 200
"""Of failing nodes, as label values: custom nodes may be many, so the rest are counted together."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
_SOCKET_SECONDS: Final = (1, 10, 60, 300, 1800, 3600, 14400, 43200, 86400)
_JOB_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_DAY_S: Final = 86400.0


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = self._counter("requests", "Requests answered.", "route", "method", "status", "tenant")
        self.gate_seconds = self._histogram("gate_seconds", "Time of a request without the wait for ComfyUI.", "route")
        self.upstream_seconds = self._histogram("upstream_seconds", "Time until ComfyUI began to answer.", "route")
        self.refusals = self._counter("refusals", "Requests refused, by reason.", "reason")
        self.received_bytes = self._counter("received_bytes", "Bodies of requests.", "tenant")
        self.sent_bytes = self._counter("sent_bytes", "Bodies of answers.", "tenant")
        self.uploads = self._counter("uploads", "Files uploaded.", "tenant")
        self.logins = self._counter("logins", "Logins of people in a browser.", "result")
        self.jobs_ended = self._counter("jobs_ended", "Jobs that ended, by outcome.", "tenant", "outcome")
        self.jobs_failed = self._counter("jobs_failed", "Jobs that failed, by the class that failed.", "node_class")
        self.jobs = self._gauge("jobs", "Jobs in ComfyUI's queue.", "tenant", "state")
        self.job_wait_seconds = self._histogram(
            "job_wait_seconds", "From the submission of a job to its start.", "tenant", buckets=_JOB_SECONDS
        )
        self.gpu_seconds = self._counter("gpu_seconds", "Time ComfyUI ran jobs.", "tenant")
        self.websockets = self._gauge("websockets", "Open WebSockets of clients.")
        self.websocket_seconds = self._histogram(
            "websocket_seconds", "How long a WebSocket was open, counted when it ends.", buckets=_SOCKET_SECONDS
        )
        self.frames = self._gauge("websocket_frames_sent", "Frames sent to clients since the start.")
        self.frame_bytes = self._gauge("websocket_bytes_sent", "Bytes of frames sent to clients since the start.")
        self.dropped_previews = self._gauge(
            "websocket_previews_dropped", "Previews left out for clients that read too slowly, since the start."
        )
        self.upstream_up = self._gauge("upstream_up", "1 while the gate is connected to ComfyUI.")
        self.worker_stuck = self._gauge("worker_stuck", "1 while ComfyUI has jobs waiting and runs none.")
        self.observer_last_sync_age_seconds = self._gauge(
            "observer_last_sync_age_seconds", "Time since the gate last compared its jobs with ComfyUI's queue."
        )
        self.task_failures = self._counter(
            "task_failures", "Background tasks that failed and were started again.", "task"
        )
        self.log_lines_dropped = self._counter(
            "log_lines_dropped", "Lines that were not written, since what takes them was too slow.", "sink"
        )
        self._dropped = {"log": 0, "audit": 0}
        for sink in self._dropped:
            self.log_lines_dropped.labels(sink)
        self.limit_store_up = self._gauge("limit_store_up", "1 while limits are counted where the configuration says.")
        self.limit_store_up.set(1)
        self.config_reloads = self._counter("config_reloads", "Changed configurations, by result.", "result")
        for result in ("good", "bad"):
            self.config_reloads.labels(result)
            self.logins.labels(result)
        self.config_is_good = self._gauge(
            "config_last_reload_successful", "1 while the configuration file is in force, 0 while it is refused."
        )
        self.config_is_good.set(1)
        self.key_expiry = self._gauge(
            "key_expiry_timestamp_seconds", "When an API key expires, in Unix time.", "key", "tenant"
        )
        self.key_expiry_days = self._gauge("key_expiry_days", "Days until an API key expires.", "key", "tenant")
        self._keys: list[tuple[str, str, float]] = []
        self._bound: dict[tuple[str, str, int, str], Counter] = {}
        self._times: dict[str, tuple[Histogram, Histogram]] = {}
        self._bodies: dict[str, tuple[Counter, Counter]] = {}
        self._node_classes: set[str] = set()

    def count(self, record: RequestRecord) -> None:
        """One request; children are bound once, since looking them up costs more than counting."""
        tenant = record.principal.tenant if record.principal else NOBODY
        key = (record.route, record.method, record.status, tenant)
        counter = self._bound.get(key)
        if counter is None:
            counter = self._bound[key] = self.requests.labels(key[0], key[1], str(key[2]), key[3])
        counter.inc()
        if record.status == 101:  # lasts as long as its client likes: that is no latency
            self.websocket_seconds.observe(record.elapsed_s)
        else:
            self._count_times(record)
        if record.received_bytes or record.sent_bytes:
            bodies = self._bodies.get(tenant)
            if bodies is None:
                bodies = (self.received_bytes.labels(tenant), self.sent_bytes.labels(tenant))
                self._bodies[tenant] = bodies
            bodies[0].inc(record.received_bytes)
            bodies[1].inc(record.sent_bytes)
        if record.route.startswith("POST /upload/") and record.status == 200:
            self.uploads.labels(tenant).inc()
        if "login" in record.notes:
            self.logins.labels(record.notes["login"]).inc()
        if record.reason:
            self.refusals.labels(record.reason).inc()

    def task_failed(self, name: str) -> None:
        self.task_failures.labels(name).inc()

    def job_ended(self, job: Job) -> None:
        outcome = job.outcome or Outcome.LOST
        if job.started_at_s is not None:
            self.job_wait_seconds.labels(job.tenant).observe(max(0.0, job.started_at_s - job.claimed_at_s))
        self.jobs_ended.labels(job.tenant, outcome.value).inc()
        self.gpu_seconds.labels(job.tenant).inc(job.gpu_s)
        if outcome is Outcome.FAILED:
            self.jobs_failed.labels(self._node_class(job.failing_class)).inc()

    def refresh(self, sockets: ConnectionRegistry, jobs: Iterable[Job], tenants: Iterable[str]) -> None:
        """Gauges, just before a scrape."""
        for key_id, tenant, expires_s in self._keys:
            self.key_expiry_days.labels(key_id, tenant).set((expires_s - time.time()) / _DAY_S)
        self.websockets.set(len(sockets))
        traffic = sockets.traffic()
        self.frames.set(traffic.sent_frames)
        self.frame_bytes.set(traffic.sent_bytes)
        self.dropped_previews.set(traffic.dropped_previews)
        counts = {(tenant, state): 0 for tenant in tenants for state in ("queued", "running")}
        for job in jobs:
            key = (job.tenant, "running" if job.state is JobState.RUNNING else "queued")
            if key in counts:
                counts[key] += 1
        self.jobs.clear()
        for (tenant, state), number in counts.items():
            self.jobs.labels(tenant, state).set(number)

    def lines_dropped(self, **totals: int) -> None:
        """Lines lost since the start, by sink: `log` or `audit`."""
        for sink, total in totals.items():
            self.log_lines_dropped.labels(sink).inc(total - self._dropped[sink])
            self._dropped[sink] = total

    def set_keys(self, keys: Iterable[KeySettings]) -> None:
        """The keys of the configuration in force that expire."""
        self.key_expiry.clear()
        self.key_expiry_days.clear()
        self._keys = [(key.id, key.tenant, key.expires.timestamp()) for key in keys if key.expires is not None]
        for key_id, tenant, expires_s in self._keys:
            self.key_expiry.labels(key_id, tenant).set(expires_s)

    def reloaded(self, is_good: bool) -> None:
        """A changed configuration was taken up, or refused."""
        self.config_reloads.labels("good" if is_good else "bad").inc()
        self.config_is_good.set(is_good)

    def render(self) -> bytes:
        """The text format; slow with many series, so it is run in a thread."""
        return generate_latest(self.registry)

    def _count_times(self, record: RequestRecord) -> None:
        times = self._times.get(record.route)
        if times is None:
            times = (self.gate_seconds.labels(record.route), self.upstream_seconds.labels(record.route))
            self._times[record.route] = times
        times[0].observe(max(0.0, record.elapsed_s - record.upstream_s))
        if record.upstream_s:
            times[1].observe(record.upstream_s)

    def _node_class(self, name: str) -> str:
        if name not in self._node_classes and len(self._node_classes) >= MAX_NODE_CLASSES:
            return OTHER
        self._node_classes.add(name)
        return name or OTHER

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"comfygate_{name}", words, labels, registry=self.registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"comfygate_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"comfygate_{name}", words, labels, buckets=buckets, registry=self.registry)

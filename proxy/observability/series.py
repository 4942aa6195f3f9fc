"""The series of /metrics: their names, their words and their labels. docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from proxy.observability.comfyui_metrics import ComfyUIMetrics
from proxy.observability.request_counts import RequestCounts

_SOCKET_SECONDS: Final = (1, 10, 60, 300, 1800, 3600, 14400, 43200, 86400)
TRIED_AGAIN: Final = (
    "comfyui-gone",
    "comfyui-gone-perhaps",
    "comfyui-restarted",
    "comfyui-unreachable",
    "comfyui-not-ready",
    "not-sent",
    "out-of-memory",
    "operator",
)
_CONVERSION_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_JOB_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Described(NamedTuple):
    """name: without the endings of its samples. kind: counter, gauge or histogram. labels: their names."""

    name: str
    kind: str
    labels: tuple[str, ...]
    words: str


class Series:
    """A registry of its own, so that a process may have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._add_requests()
        self._add_jobs()
        self._add_webhooks()
        self._add_copies()
        self._add_conversions()
        self._add_sockets()
        self._add_gate()
        self.comfyuis = ComfyUIMetrics(self.registry)

    def described(self) -> Iterator[Described]:
        """All of them, also those that have counted nothing yet."""
        for family in self.requests.collect():
            yield Described(family.name, family.type, self.requests.LABELS[family.name], family.documentation)
        for metric in (*vars(self).values(), *vars(self.comfyuis).values()):
            if isinstance(metric, MetricWrapperBase):
                yield Described(metric._name, str(metric._type), metric._labelnames, metric._documentation)

    def _add_requests(self) -> None:
        self.requests = RequestCounts()
        self.registry.register(self.requests)
        self.refusals = self._counter("refusals", "Requests refused, by reason.", "reason")
        self.uploads = self._counter("uploads", "Files uploaded.", "tenant")
        self.fetches = self._counter(
            "fetches",
            "Files that stood in calls as addresses, by what came of it: fetched, or why not.",
            "tenant",
            "result",
        )
        self.logins = self._counter("logins", "Logins of people in a browser.", "result")
        for result in ("good", "bad"):
            self.logins.labels(result)

    def _add_jobs(self) -> None:
        self.idempotent_submissions = self._counter(
            "idempotent_submissions", "Submissions with an Idempotency-Key, by what became of it.", "outcome"
        )
        self.submissions_by_outcome = {
            outcome: self.idempotent_submissions.labels(outcome)
            for outcome in ("first", "replayed", "found", "in-use", "reused")
        }
        """Of those with a key: to find a series takes longer than to count in it."""
        self.jobs_ended = self._counter("jobs_ended", "Jobs that ended, by outcome.", "tenant", "outcome")
        self.jobs_failed = self._counter("jobs_failed", "Jobs that failed, by the class that failed.", "node_class")
        self.jobs = self._gauge("jobs", "Jobs that wait and run.", "tenant", "state")
        self.jobs_tried_again = self._counter(
            "jobs_tried_again", "Jobs that wait again after ComfyUI had them, by the reason.", "reason"
        )
        for reason in TRIED_AGAIN:
            self.jobs_tried_again.labels(reason)
        self.jobs_forgotten = self._counter(
            "jobs_forgotten", "Ended jobs that are kept no more, by the bound that they were over.", "tenant", "bound"
        )
        self.warmups = self._counter(
            "warmups",
            "Functions that were run at a ComfyUI after its start, by what came of it: done, failed, or stopped for a job.",
            "comfyui",
            "result",
        )
        self.job_wait_seconds = self._histogram(
            "job_wait_seconds", "From the submission of a job to its start.", "tenant", buckets=_JOB_SECONDS
        )
        self.gpu_seconds = self._counter("gpu_seconds", "Time ComfyUI ran jobs.", "tenant")
        self._node_classes: set[str] = set()
        self.warmed: set[tuple[str, str]] = set()
        """Names of ComfyUIs, and results."""

    def _add_webhooks(self) -> None:
        self.webhook_attempts = self._counter(
            "webhook_attempts",
            "Webhooks sent, by what came of it: delivered, failed, given-up, or gone where the receiver wants no more.",
            "tenant",
            "endpoint",
            "result",
        )
        self.webhook_endpoint_up = self._gauge(
            "webhook_endpoint_up", "1 when the last webhook to it was delivered.", "tenant", "endpoint"
        )
        self.webhook_endpoint_switched_off = self._gauge(
            "webhook_endpoint_switched_off",
            "1 while it is told nothing, since it has answered 410; looked up each minute.",
            "tenant",
            "endpoint",
        )
        self.webhooks_waiting = self._gauge("webhooks_waiting", "Webhooks to be sent, counted each minute.", "tenant")
        self.webhooks_dropped = self._counter(
            "webhooks_dropped", "Webhooks that were too old or too many to be kept, and never delivered.", "tenant"
        )

    def _add_copies(self) -> None:
        self.copy_attempts = self._counter(
            "copy_attempts",
            "Work on copies of what jobs made, by what came of it: copied, failed, given-up, lost, wiped, kept, missing, deleted or removed.",
            "tenant",
            "result",
        )
        self.copied_bytes = self._counter("copied_bytes", "Bytes of what was copied.", "tenant")
        self.copies = self._gauge(
            "copies",
            "Copies that are waiting, have failed or are to be deleted, counted each minute.",
            "tenant",
            "state",
        )
        self.copies_dropped = self._counter(
            "copies_dropped", "Copies that were too many to be waited for, and never made.", "tenant"
        )

    def _add_conversions(self) -> None:
        self.conversions = self._counter(
            "conversions",
            "Outputs that were converted, or stripped of their workflow, by what came of it: made, refused, failed or gone.",
            "format",
            "result",
        )
        self.conversion_seconds = self._histogram(
            "conversion_seconds",
            "Time of a conversion, without the wait for it.",
            "format",
            buckets=_CONVERSION_SECONDS,
        )
        self.conversions_waiting = self._gauge(
            "conversions_waiting", "Conversions that wait for their turn, for a process, or for the original."
        )

    def _add_sockets(self) -> None:
        self.websockets = self._gauge("websockets", "Open WebSockets of clients.")
        self.websocket_seconds = self._histogram(
            "websocket_seconds", "How long a WebSocket was open, counted when it ends.", buckets=_SOCKET_SECONDS
        )
        self.frames = self._gauge("websocket_frames_sent", "Frames sent to clients since the start.")
        self.frame_bytes = self._gauge("websocket_bytes_sent", "Bytes of frames sent to clients since the start.")
        self.dropped_previews = self._gauge(
            "websocket_previews_dropped", "Previews left out for clients that read too slowly, since the start."
        )

    def _add_gate(self) -> None:
        """The gate itself, and what it depends on."""
        self.upstream_up = self._gauge(
            "upstream_up", "1 while the gate is connected to ComfyUI; of several to the first."
        )
        self.worker_stuck = self._gauge(
            "worker_stuck", "1 while ComfyUI, of several the first, has jobs waiting and runs none."
        )
        self.observer_last_sync_age_seconds = self._gauge(
            "observer_last_sync_age_seconds",
            "Time since the gate last compared its jobs with the queue of ComfyUI, of several of the first.",
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
        self.config_is_good = self._gauge(
            "config_last_reload_successful", "1 while the configuration file is in force, 0 while it is refused."
        )
        self.config_is_good.set(1)
        self.key_expiry = self._gauge(
            "key_expiry_timestamp_seconds", "When an API key expires, in Unix time.", "key", "tenant"
        )
        self.key_expiry_days = self._gauge("key_expiry_days", "Days until an API key expires.", "key", "tenant")
        self._keys: list[tuple[str, str, float]] = []

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"comfygate_{name}", words, labels, registry=self.registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"comfygate_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"comfygate_{name}", words, labels, buckets=buckets, registry=self.registry)

"""What the gate counts. Label values come from the route table, the configuration and fixed words, never from clients."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import generate_latest

from policy.webhooks import CALLS
from proxy.config.identity import KeySettings
from proxy.http.request_record import RequestRecord
from proxy.jobs.registry import Job, JobState, Outcome
from proxy.observability.comfyui_metrics import OTHER
from proxy.observability.request_counts import NOBODY
from proxy.observability.series import Series
from proxy.websocket.connections import ConnectionRegistry

MAX_NODE_CLASSES: Final = 200
"""Of failing nodes, as label values: custom nodes may be many, so the rest are counted together."""
_DAY_S: Final = 86400.0


class Metrics(Series):
    """What is counted, and when."""

    def count(self, record: RequestRecord) -> None:
        """One request, which has ended."""
        principal = record.principal
        tenant = principal.tenant if principal is not None else NOBODY
        self.requests.add(record, tenant)
        if record.reason:
            self.refusals.labels(record.reason).inc()
        if record.notes:
            if "login" in record.notes:
                self.logins.labels(record.notes["login"]).inc()
            elif "idempotency" in record.notes:
                self.submissions_by_outcome[record.notes["idempotency"]].inc()
        if record.status == 101:
            self.websocket_seconds.observe(record.elapsed_s)
        elif record.status == 200 and record.method == "POST" and record.route.startswith("POST /upload/"):
            self.uploads.labels(tenant).inc()

    def task_failed(self, name: str) -> None:
        self.task_failures.labels(name).inc()

    def job_ended(self, job: Job) -> None:
        outcome = job.outcome or Outcome.LOST
        if job.started_at_s is not None:
            self.job_wait_seconds.labels(job.tenant).observe(max(0.0, job.started_at_s - job.claimed_at_s))
        self.jobs_ended.labels(job.tenant, outcome.value).inc()
        self.gpu_seconds.labels(job.tenant).inc(job.gpu_s)
        node_class = self._node_class(job.failing_class) if outcome is Outcome.FAILED else OTHER
        self.comfyuis.job_ended(job, outcome, node_class)
        if outcome is Outcome.FAILED:
            self.jobs_failed.labels(node_class).inc()

    def job_tried_again(self, job: Job) -> None:
        reason = job.attempts[-1].get("reason", "") if job.attempts else "operator"
        self.jobs_tried_again.labels(reason).inc()
        self.comfyuis.job_tried_again(job, reason)

    def jobs_dropped(self, tenant: str, bound: str, count: int) -> None:
        self.jobs_forgotten.labels(tenant, bound).inc(count)

    def webhook_tried(self, tenant: str, endpoint: str, result: str, outcome: str) -> None:
        self.webhook_attempts.labels(tenant, endpoint, outcome if outcome == "given-up" else result).inc()
        if endpoint != CALLS:
            self.webhook_endpoint_up.labels(tenant, endpoint).set(result == "delivered")

    def webhooks_lost(self, tenant: str, count: int) -> None:
        self.webhooks_dropped.labels(tenant).inc(count)

    def webhooks_counted(self, counts: Mapping[str, int], switched_off: Mapping[tuple[str, str], bool]) -> None:
        """switched_off: of each endpoint, by tenant and name, whether it wants no more."""
        self.webhooks_waiting.clear()
        for tenant, count in counts.items():
            self.webhooks_waiting.labels(tenant).set(count)
        self.webhook_endpoint_switched_off.clear()
        for (tenant, endpoint), is_off in switched_off.items():
            self.webhook_endpoint_switched_off.labels(tenant, endpoint).set(is_off)

    def converted(self, kind: str, result: str, seconds: float) -> None:
        """kind: the format, or `strip`."""
        self.conversions.labels(kind, result).inc()
        self.conversion_seconds.labels(kind).observe(seconds)

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

    def _node_class(self, name: str) -> str:
        if name not in self._node_classes and len(self._node_classes) >= MAX_NODE_CLASSES:
            return OTHER
        self._node_classes.add(name)
        return name or OTHER


def name_comfyuis(metrics: Metrics, names: Sequence[str]) -> None:
    """Of those that there are, the first one first; of others nothing is told any more."""
    metrics.comfyuis.set_names(names)
    for name, result in [each for each in metrics.warmed if each[0] not in names]:
        metrics.warmed.discard((name, result))
        metrics.warmups.remove(name, result)

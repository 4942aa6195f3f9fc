"""Who hears what becomes of jobs, and what works for them beside the requests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from policy.principal import TenantId
from policy.v2.assets import Asset
from proxy.dependencies import Dependencies
from proxy.files.quota_keeper import QuotaKeeper
from proxy.jobs.events import JobEvents
from proxy.jobs.housekeeping import Housekeeping
from proxy.jobs.job import Job, JobState
from proxy.jobs.time_limit import JobTimes
from proxy.limits.effective_limits import EffectiveLimits
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.persistence.operations import Database, DatabaseUnavailable
from proxy.tasks import Tasks
from proxy.webhooks.sender import Views
from proxy.wiring.webhooks import build_webhooks

if TYPE_CHECKING:
    from proxy.copies.copier import Copier
    from proxy.copies.substitutes import Substitutes

_log = logging.getLogger("comfygate")


class JobFollowers:
    """Subscribed when it is made; `start` and `stop` are of its loops."""

    def __init__(
        self,
        parts: Dependencies,
        events: JobEvents,
        database: Database,
        allotment: EffectiveLimits,
        metrics: Metrics,
        audit: AuditTrail,
    ) -> None:
        self._parts = parts
        self._metrics = metrics
        self._audit = audit
        self._tasks = Tasks()
        self._end_following: Callable[[], None] | None = None
        self._housekeeping = Housekeeping(
            database,
            parts.registry,
            parts.jobs.records,
            parts.queue_watchers.request_sync,
            lambda: parts.compiled.config.jobs,
            lambda: parts.compiled.config.tenants.keys() | parts.registry.tenants.keys(),
            metrics.jobs_dropped,
        )
        self._housekeeping.on_taken_over = parts.v2.own_sockets.taken_over
        self._quotas = QuotaKeeper(
            parts.upstream, parts.registry, parts.jobs.results.cancel_waiting, parts.storage, audit
        )
        self._job_times = JobTimes(
            parts.upstream, parts.registry, parts.jobs.records, lambda tenant: allotment.of_tenant(tenant).job_seconds
        )
        views, self.copier, self._substitutes = _copying(parts, database, metrics, audit, lambda: self.webhooks.wake())
        self.webhooks = build_webhooks(parts, database, metrics, audit, views)
        self._subscribe(events)

    async def open(self) -> None:
        """Before the first job can end. Raises DatabaseUnavailable."""
        await self.webhooks.open()
        if self.copier is not None:
            await self.copier.open()

    async def reconfigured(self) -> None:
        """Another configuration is in force."""
        await self.webhooks.reconfigured()
        if self.copier is not None:
            self.copier.wake()

    def start(self) -> None:
        self._end_following = self._parts.jobs.replica.follow()
        self._tasks.supervise(self._parts.jobs.dispatcher.run, "dispatcher")
        self._tasks.supervise(self._housekeeping.follow, "leases")
        self._tasks.supervise(self._housekeeping.clean, "retention of jobs")
        self._tasks.supervise(self._parts.v2.assets.sweep_forever, "expiry of assets")
        self._tasks.supervise(self._sweep_converted, "retention of converted outputs")
        self._tasks.supervise(self._job_times.watch, "job times")
        self._tasks.supervise(self.webhooks.run, "webhooks")
        if self.copier is not None:
            self._tasks.supervise(self.copier.run, "copies")

    async def stop(self) -> None:
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
        await self._tasks.stop()
        await self._parts.jobs.dispatcher.stop()
        if self._substitutes is not None:
            await self._substitutes.stop()
        await self.webhooks.stop()
        if self.copier is not None:
            await self.copier.stop()
        await self._parts.jobs.replica.stop()
        await self._quotas.stop()
        await self._housekeeping.leave()

    def _subscribe(self, events: JobEvents) -> None:
        """Who hears what, in this order."""
        parts, streams, followed = self._parts, self._parts.streams, self._parts.v2.streams
        # ComfyUI tells everybody of every queued job, and its web UI reads the queue anew only when it is told so.
        events.queued.subscribe(streams.job_changed, followed.job_changed, self._may_run)
        started = self._parts.v2.own_sockets.started
        events.started.subscribe(streams.job_changed, followed.job_changed, self._record_start, started)
        events.ended.subscribe(
            parts.admission.ended,
            streams.job_ended,
            self._metrics.job_ended,
            self._audit.job_ended,
            self._quotas.job_ended,
            streams.job_changed,
            followed.job_ended,
            lambda job: parts.jobs.dispatcher.wake(),
            self._wake_senders,
        )
        events.canceled.subscribe(
            self._audit.job_canceled, streams.job_changed, followed.job_changed, lambda job: self.webhooks.wake()
        )
        parts.queue_watchers.on_synced(self._synced)
        parts.v2.assets.on_deleted = self._deleted
        parts.registry.temp_files.on_let_go = self._quotas.let_go
        parts.jobs.endings.on_waiting = self._waits_again
        parts.jobs.endings.on_failed = streams.job_failed
        parts.jobs.replica.on_foreign_change = self._changed_elsewhere
        parts.registry.on_read_end = partial(streams.job_ended, is_elsewhere=True)
        parts.jobs.replica.on_cancel_wish = parts.jobs.results.cancel

    def _wake_senders(self, job: Job) -> None:
        self.webhooks.wake()
        if self.copier is not None:
            self.copier.wake()

    def _may_run(self, job: Job) -> None:
        """A job is new: it waits until it is given to ComfyUI, or has been given, and may have run already."""
        if job.state is JobState.WAITING:
            self._parts.jobs.dispatcher.wake()
        else:
            self._parts.queue_watchers.request_sync()

    def _record_start(self, job: Job) -> None:
        if job.gate == self._parts.jobs.records.gate and job.started_at_s is not None:
            self._tasks.start(self._write_start(job.prompt_id, job.started_at_s), "record a start")

    async def _write_start(self, prompt_id: str, started_at_s: float) -> None:
        try:
            await self._parts.jobs.records.start(prompt_id, started_at_s)
        except DatabaseUnavailable as error:
            _log.warning("that job %s runs is not recorded: %s", prompt_id, error)

    async def _sweep_converted(self) -> None:
        parts = self._parts
        await parts.conversions.sweep_forever(
            lambda: parts.compiled.tenants, lambda tenant: parts.compiled.limits_of(tenant).retention
        )

    def _deleted(self, tenant: TenantId, asset: Asset) -> None:
        self._parts.v2.views.forget(asset.prompt_id)
        self._tasks.start(self._parts.conversions.forget(tenant, asset), "forget what was converted")
        if self.copier is not None:
            self.copier.wake()
        self.webhooks.wake()

    def _synced(self) -> None:
        self._parts.admission.synced()
        self._parts.jobs.replica.cancel_unwanted()
        self._parts.jobs.dispatcher.wake()

    def _waits_again(self, job: Job) -> None:
        self._metrics.job_tried_again(job)
        self._audit.job_tried_again(job)
        self._parts.streams.job_changed(job)
        self._parts.v2.streams.job_changed(job)
        self._parts.jobs.dispatcher.wake()

    def _changed_elsewhere(self, job: Job) -> None:
        """Another gate, or the operator, has written of it."""
        if job.state is JobState.ENDED or self._parts.registry.job(job.prompt_id) is None:
            self._parts.admission.let_go(job)
        self._housekeeping.changed_elsewhere(job)
        self._parts.streams.job_changed(job)
        self._parts.v2.streams.job_changed(job)
        self._parts.jobs.dispatcher.wake()


def _copying(
    parts: Dependencies, database: Database, metrics: Metrics, audit: AuditTrail, wake: Callable[[], None]
) -> tuple[Views, Copier | None, Substitutes | None]:
    """How jobs look whose results are copied, what copies them, and what takes the place of a file that is away. A gate without a bucket does without the
    code for one.
    """
    if not parts.compiled.config.storage.is_on:
        return parts.v2.views, None, None
    from proxy.copies.opening import open_bucket
    from proxy.wiring.copies import LinkedViews, build_copier, build_reader, build_substitutes

    bucket = open_bucket(parts.compiled.config)
    reader = build_reader(parts, database, bucket)
    copier = build_copier(parts, database, bucket, metrics, audit, wake)
    return LinkedViews(parts.v2.views, reader), copier, build_substitutes(parts, reader)

"""Makes what copies the results of jobs, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from policy.call import UpstreamPath
from policy.copies import CopyState
from policy.functions.conversion import Recipe
from policy.functions.results import LABEL, forms_of
from policy.namespace import Folder
from policy.principal import TenantId
from policy.rules.files import view_of
from policy.v2.assets import Asset
from policy.v2.jobs import JobView
from proxy.copies.bucket import Bucket
from proxy.copies.copier import Copier
from proxy.copies.copy_operations import Split
from proxy.copies.forms import Forms
from proxy.copies.meant import MeantCopies
from proxy.copies.originals import Originals
from proxy.copies.reader import CopyReader
from proxy.copies.substitutes import Substitutes
from proxy.copies.work import CopyWork
from proxy.dependencies import Dependencies
from proxy.jobs.copy_requests import Copy
from proxy.jobs.queue_watchers import is_heard
from proxy.observability.audit_log import AuditTrail
from proxy.observability.metrics import Metrics
from proxy.persistence.operations import Database
from proxy.upstream.upstreams import Upstreams
from proxy.v2.job_views import JobViews


@dataclass(frozen=True, slots=True)
class LinkedViews:
    """Jobs with links to their copies."""

    views: JobViews
    reader: CopyReader

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        """Raises DatabaseUnavailable."""
        found = await self.views.find(tenant, prompt_id)
        return None if found is None else await self.reader.with_links(tenant, found)


def build_reader(parts: Dependencies, database: Database, bucket: Bucket) -> CopyReader:
    """The doors answer from copies as soon as it is made."""

    def answers(folder: Folder, path: UpstreamPath) -> bool:
        upstream = parts.upstream
        other = upstream.choose(view_of("HEAD", folder, path)) if isinstance(upstream, Upstreams) else ""
        return is_heard(parts.queue_watchers, other or parts.registry.comfyuis[0])

    meant = MeantCopies(database, parts.jobs.documents, parts.registry, answers)
    reader = CopyReader(database, bucket, meant, lambda: parts.compiled.config.storage.links)
    parts.copies = parts.v2.assets.copies = reader
    parts.v2.door.with_links = reader.with_links
    parts.conversions.sources.copies = reader
    parts.jobs.records.copies_results = True
    return reader


def build_substitutes(parts: Dependencies, reader: CopyReader) -> Substitutes | None:
    """What jobs read of ComfyUIs that are away comes from the bucket from now on. None where there is one ComfyUI."""
    transfers, placing = parts.transfers, parts.jobs.placing
    if transfers is None or placing is None:
        return None
    substitutes = Substitutes(reader, parts.jobs.dispatcher.wake)
    transfers.instead = substitutes.open
    placing.has_copies, placing.look_for_copies = substitutes.has, substitutes.look
    return substitutes


@dataclass(frozen=True, slots=True)
class Told:
    """What metrics and the audit trail hear of copies. wake: whoever tells others outside."""

    metrics: Metrics
    audit: AuditTrail
    wake: Callable[[], None]

    def tried(self, copy: Copy, result: str) -> None:
        self.wake()
        if copy.is_whole_job and result not in ("failed", Split.LOST):
            return
        is_given_up = result == "failed" and copy.state == CopyState.FAILED
        self.metrics.copy_attempts.labels(copy.tenant, "given-up" if is_given_up else result).inc()
        if result == "copied":
            self.metrics.copied_bytes.labels(copy.tenant).inc(copy.stored_bytes)
        if result == "kept":  # which comes again and again
            return
        self.audit.write(
            "copy",
            prompt_id=copy.prompt_id,
            tenant=copy.tenant,
            copy=copy.copy_id,
            state=copy.state,
            result=result,
            attempt=copy.attempts,
            note=copy.note,
        )

    def lost(self, tenant: str, count: int) -> None:
        self.wake()
        self.metrics.copies_dropped.labels(tenant).inc(count)

    def counted(self, counts: Mapping[tuple[str, str], int]) -> None:
        self.metrics.copies.clear()
        for (tenant, state), count in counts.items():
            self.metrics.copies.labels(tenant, state).set(count)


def build_copier(
    parts: Dependencies,
    database: Database,
    bucket: Bucket,
    metrics: Metrics,
    audit: AuditTrail,
    wake: Callable[[], None],
) -> Copier:
    def keep_local_s() -> float | None:
        return parts.compiled.config.storage.keep_local

    told = Told(metrics, audit, wake)

    def forms_of_job(job: JobView) -> tuple[tuple[Asset, Recipe], ...]:
        return forms_of(job, parts.compiled.functions.get((job.labels or {}).get(LABEL, "")))

    disk = parts.storage.disk
    work = CopyWork(
        database,
        bucket,
        Originals(parts.tenant_files, parts.registry),
        Forms(parts.conversions, parts.registry),
        disk,
        parts.v2.views,
        lambda: keep_local_s() is not None,
        forms_of_job,
    )
    return Copier(
        database,
        work,
        parts.jobs.records.gate,
        keep_local_s,
        lambda: parts.compiled.config.jobs.history,
        on_done=told.tried,
        on_lost=told.lost,
        on_counted=told.counted,
    )

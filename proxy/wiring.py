"""Makes what lives as long as the gate, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policy.namespace import Folder
from proxy.auth.login_throttle import LoginThrottle
from proxy.compiled_config import CompiledConfig
from proxy.dependencies import Dependencies
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.listing import FileListing
from proxy.files.quota import StorageQuota
from proxy.jobs.admission import JobAdmission
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.idempotency import IdempotentSubmissions
from proxy.jobs.idempotency_db import KeptSubmissions
from proxy.jobs.job_finder import JobFinder
from proxy.jobs.kept_documents import KeptJobs
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import unseen, written_at
from proxy.limits.limits import Limits
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder
from proxy.pages.routes import GatePages
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from proxy.upstream.compressor import Compressor
from proxy.upstream.document_cache import DocumentCache
from proxy.upstream.node_catalogue import CatalogueSource
from proxy.upstream.preview_queue import PreviewQueue
from proxy.upstream.web_files import WebFiles
from proxy.websocket.client_sockets import ClientSockets
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_sessions import EventSessions

InForce = Callable[[], CompiledConfig]


def build_dependencies(
    compiled: CompiledConfig, limits: Limits, state: Database, events: JobEvents, recorder: Recorder
) -> Dependencies:
    """state: open while requests come. events: published by the queue watcher, the sockets and the admission; who hears of them is wired in app.py."""

    def in_force() -> CompiledConfig:  # for what outlives a request; a request has one of its own
        return dependencies.compiled

    directory = _directory(compiled)
    upstream, kept, sockets = _upstream(compiled), KeptJobs(), ConnectionRegistry()
    registry = JobRegistry(written_at=unseen if directory is None else written_at(directory / Folder.TEMP.value))
    watcher = QueueWatcher(upstream, registry, on_started=events.started, on_ended=events.ended)
    streams = _streams(upstream, in_force, SocketReports(registry, events, watcher.request_sync))
    throttle, under_way, compressor = LoginThrottle(limits), UnderWay(limits.allotment), Compressor()
    dependencies = Dependencies(
        compiled=compiled,
        upstream=upstream,
        login_throttle=throttle,
        pages=GatePages(throttle, limits, registry, recorder.refusals),
        registry=registry,
        queue_watcher=watcher,
        admission=_admission(limits, registry, kept, events, watcher, streams),
        idempotency=IdempotentSubmissions(KeptSubmissions(state), JobFinder(upstream, registry, watcher)),
        kept=kept,
        catalogue=CatalogueSource(upstream),
        compressor=compressor,
        document_cache=DocumentCache(compressor),
        web_files=WebFiles(upstream, compressor),
        files=FileListing(directory),
        storage=_storage(directory, registry, in_force),
        limiter=limits,
        under_way=under_way,
        pictures=PreviewQueue(under_way.has_neighbours),
        sockets=sockets,
        streams=streams,
        client_sockets=_client_sockets(upstream, streams, sockets, limits, registry, in_force),
        recorder=recorder,
    )
    return dependencies


def _directory(compiled: CompiledConfig) -> Path | None:
    """ComfyUI's base folder, None where the gate does not see it."""
    config = compiled.config
    return config.resolve(config.upstream.directory) if config.upstream.directory is not None else None


def _upstream(compiled: CompiledConfig) -> Upstream:
    settings = compiled.config.upstream
    return Upstream(settings.url, settings.connect_timeout)


def _streams(upstream: Upstream, in_force: InForce, reports: SocketReports) -> EventSessions:
    return EventSessions(upstream, reconnect_grace_s=lambda: _grace_s(in_force), reports=reports)


def _grace_s(in_force: InForce) -> float:
    return in_force().config.server.reconnect_grace


def _client_sockets(
    upstream: Upstream,
    streams: EventSessions,
    sockets: ConnectionRegistry,
    limits: Limits,
    registry: JobRegistry,
    in_force: InForce,
) -> ClientSockets:
    return ClientSockets(
        upstream,
        streams,
        sockets,
        reconnect_grace_s=lambda: _grace_s(in_force),
        slot=limits.slots.claim_socket,
        jobs=registry,
    )


def _admission(
    limits: Limits,
    registry: JobRegistry,
    kept: KeptJobs,
    events: JobEvents,
    watcher: QueueWatcher,
    streams: EventSessions,
) -> JobAdmission:
    return JobAdmission(
        registry,
        limits.slots,
        limits.budgets,
        limits.allotment.weights(),
        on_queued=events.queued,
        is_taken=watcher.has_job,
        kept=kept,
        listen=streams.listen,
    )


def _storage(directory: Path | None, registry: JobRegistry, in_force: InForce) -> StorageQuota:
    return StorageQuota(
        ComfyUIFolders(directory) if directory is not None else None,
        registry,
        lambda tenant: in_force().limits_of(tenant),
        lambda: in_force().tenants,
    )

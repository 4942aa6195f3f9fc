"""Makes what lives as long as the gate, and gives each part what it needs."""

from __future__ import annotations

from collections.abc import Callable

from proxy.auth.login_throttle import LoginThrottle
from proxy.compiled_config import CompiledConfig
from proxy.dependencies import Dependencies
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.files.directories import Directories
from proxy.files.listing import FileListing
from proxy.files.quota import StorageQuota
from proxy.files.tenant_files import TenantFiles
from proxy.jobs.events import JobEvents
from proxy.jobs.idempotency import IdempotentSubmissions
from proxy.jobs.idempotency_db import KeptSubmissions
from proxy.jobs.job_finder import JobFinder
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.parts import JobParts
from proxy.jobs.registry import JobRegistry
from proxy.limits.heavy_work import HeavyWork
from proxy.limits.limits import Limits
from proxy.limits.underway import UnderWay
from proxy.observability.access_log import Recorder
from proxy.outside.fetches import Fetches
from proxy.pages.routes import GatePages
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from proxy.upstream.compressor import Compressor
from proxy.upstream.document_cache import DocumentCache
from proxy.upstream.preview_queue import PreviewQueue
from proxy.upstream.web_files import WebFiles
from proxy.websocket.client_sockets import ClientSockets
from proxy.websocket.connections import ConnectionRegistry
from proxy.websocket.event_sessions import EventSessions
from proxy.wiring.catalogue import build_catalogue
from proxy.wiring.comfyui import build_upstream, choose_makers, see_directories
from proxy.wiring.conversions import build_conversions
from proxy.wiring.fleet import Fleet, build_fleet
from proxy.wiring.jobs import Made, build_jobs
from proxy.wiring.outside import own_places
from proxy.wiring.v2 import build_v2

InForce = Callable[[], CompiledConfig]


def build_dependencies(
    compiled: CompiledConfig, limits: Limits, state: Database, events: JobEvents, recorder: Recorder, in_force: InForce
) -> tuple[Dependencies, Fleet | None]:
    """And what has ComfyUIs come and go. state: open while requests come. events: who hears is wired in app.py. in_force: when everything is built."""
    config, upstream, seen = compiled.config, build_upstream(compiled), see_directories(compiled.config)
    made = build_jobs(upstream, state, limits, events, KeptDocuments(), seen, config.comfyuis, in_force)
    makers, transfers = choose_makers(upstream, seen, made.jobs)
    parts = _assemble(compiled, limits, state, made, recorder, in_force)
    parts.transfers = transfers
    return parts, build_fleet(config, parts, made, makers, state)


def _assemble(
    compiled: CompiledConfig, limits: Limits, state: Database, made: Made, recorder: Recorder, in_force: InForce
) -> Dependencies:
    (upstream, directories, kept, jobs, hearing, *_), heavy = made, HeavyWork()
    registry, throttle, sockets = jobs.registry, LoginThrottle(limits), ConnectionRegistry()
    files, storage = TenantFiles(upstream, heavy, directories), _storage(directories, registry, in_force)
    under_way = UnderWay(limits.allotment, lambda: limits.slots.max_connections)
    return Dependencies(
        compiled=compiled,
        upstream=upstream,
        login_throttle=throttle,
        pages=GatePages(throttle, limits, registry, jobs.forecasts, recorder.refusals),
        registry=registry,
        queue_watchers=jobs.watchers,
        admission=jobs.admission,
        jobs=jobs,
        idempotency=_idempotency(upstream, state, jobs),
        kept=kept,
        catalogue=build_catalogue(upstream, registry.comfyuis[0], jobs.placing),
        compressor=(compressor := Compressor()),
        document_cache=DocumentCache(compressor),
        web_files=WebFiles(upstream, compressor),
        files=FileListing(directories),
        storage=storage,
        tenant_files=files,
        heavy=heavy,
        limiter=limits,
        under_way=under_way,
        pictures=PreviewQueue(under_way.has_neighbours),
        sockets=sockets,
        streams=hearing.sessions,
        client_sockets=_client_sockets(upstream, hearing.sessions, sockets, limits, registry, in_force),
        recorder=recorder,
        fetches=Fetches(lambda: own_places(in_force().config)),
        v2=build_v2(upstream, state, storage.disk, files, jobs, hearing, sockets, limits.slots.claim_socket, in_force),
        conversions=build_conversions(compiled, upstream, files, directories, in_force, recorder.converted),
    )


def _idempotency(upstream: Upstream, state: Database, jobs: JobParts) -> IdempotentSubmissions:
    return IdempotentSubmissions(
        KeptSubmissions(state), JobFinder(upstream, jobs.registry, jobs.records, jobs.watchers.first)
    )


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


def _storage(directories: Directories, registry: JobRegistry, in_force: InForce) -> StorageQuota:
    return StorageQuota(
        ComfyUIFolders(directories) if directories.first is not None else None,
        registry,
        lambda tenant: in_force().limits_of(tenant),
        lambda: in_force().tenants,
    )

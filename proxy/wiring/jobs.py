"""Makes what follows jobs from their submission to their end, and gives each part what it needs."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from proxy.compiled_config import CompiledConfig
from proxy.config.comfyui import ComfyUISettings
from proxy.files.directories import Directories
from proxy.jobs.admission import JobAdmission
from proxy.jobs.endings import JobEndings
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.forecasts import JobForecasts
from proxy.jobs.job import Job
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.job_places import JobPlaces
from proxy.jobs.kept_documents import KeptDocuments
from proxy.jobs.parts import JobParts
from proxy.jobs.preparation import Preparation
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.results import JobResults, read_ended
from proxy.jobs.temp_files import written_at
from proxy.limits.limits import Limits
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from proxy.upstream.upstreams import Upstreams
from proxy.websocket.event_sessions import EventSessions
from proxy.websocket.own_sockets import OwnSockets
from proxy.websocket.parts import SocketParts
from proxy.websocket.session_sockets import SessionSockets
from proxy.wiring.dispatching import (
    SenderOf,
    WatcherOf,
    build_dispatcher,
    sender_maker,
    set_patience,
    watcher_maker,
)


class Made(NamedTuple):
    """watcher_of, sender_of: make that of another ComfyUI. sockets: None where there is one, and no other can come."""

    upstream: Upstream
    directories: Directories
    kept: KeptDocuments
    jobs: JobParts
    hearing: SocketParts
    watcher_of: WatcherOf
    sender_of: SenderOf
    sockets: SessionSockets | None


def build_jobs(
    upstream: Upstream,
    database: Database,
    limits: Limits,
    events: JobEvents,
    kept: KeptDocuments,
    directories: Directories,
    comfyuis: Sequence[ComfyUISettings],
    in_force: Callable[[], CompiledConfig],
) -> Made:
    """in_force: the configuration, when everything is built."""
    registry, records = _records(database, limits, directories, comfyuis, in_force)
    replica, documents = JobReplica(database, registry, records), JobDocuments(database, registry)
    endings = JobEndings(upstream, registry, records, documents, kept, _retries(in_force), events.ended)
    watcher_of = watcher_maker(registry, records, endings, events, replica)
    watchers = QueueWatchers({each.name: watcher_of(each.name, upstream.of(each.name)) for each in comfyuis}, registry)
    set_patience(watchers, comfyuis)
    reports = SocketReports(registry, events, watchers.close_soon)
    sessions = _sessions(upstream, reports, documents, in_force)
    own, hear, sockets = _own_sockets(upstream, sessions, reports, watchers, records, database, registry)
    admission = _admission(registry, records, limits, events, watchers, kept, sessions, own)
    results = JobResults(upstream, registry, records, documents, admission, watchers.close_soon, events.canceled)
    records.on_canceled = results.canceled
    preparation = Preparation(hear)
    sender_of = sender_maker(registry, records, endings.refused, preparation, lambda: dispatcher.wake())
    senders = [sender_of(watcher, upstream.of(watcher.name)) for watcher in watchers]
    last = (registry, records, replica, in_force, preparation)
    is_named = isinstance(upstream, Upstreams)
    dispatcher, placing = build_dispatcher(comfyuis, senders, watchers, *last, may_be_several=is_named)
    admission.placing = placing
    places = None if placing is None else JobPlaces(placing)
    forecasts = JobForecasts(database, registry, limits.allotment.weights, comfyuis=watchers.there, places=places)
    read = (documents, forecasts, preparation, placing)
    jobs = JobParts(registry, records, replica, watchers, endings, admission, results, dispatcher, *read)
    hearing = SocketParts(sessions, own, reports)
    return Made(upstream, directories, kept, jobs, hearing, watcher_of, sender_of, sockets)


def _retries(in_force: Callable[[], CompiledConfig]) -> Callable[[], bool]:
    return lambda: in_force().config.jobs.retry_interrupted


def _records(
    database: Database,
    limits: Limits,
    directories: Directories,
    comfyuis: Sequence[ComfyUISettings],
    in_force: Callable[[], CompiledConfig],
) -> tuple[JobRegistry, JobRecords]:
    names = [comfyui.name for comfyui in comfyuis]
    registry = JobRegistry(written_at=written_at(directories.temp_of), comfyuis=names)
    records = JobRecords(database, registry, _gate_name(), lambda: in_force().window, limits.allotment.weights)
    return registry, records


def _own_sockets(
    upstream: Upstream,
    sessions: EventSessions,
    reports: SocketReports,
    watchers: QueueWatchers,
    records: JobRecords,
    database: Database,
    registry: JobRegistry,
) -> tuple[OwnSockets, Callable[[Job], Awaitable[None]], SessionSockets | None]:
    """And what is to be called before a job goes to its ComfyUI, and the sockets to each of several."""
    if not isinstance(upstream, Upstreams):
        own = OwnSockets(sessions, registry, records.gate, lambda: watchers.first.is_connected)
        return own, own.prepare, None
    reports.others = frozenset(upstream.others)

    def is_connected(comfyui: str) -> bool:
        return any(watcher.is_connected for watcher in watchers if watcher.name == (comfyui or watchers.first.name))

    of_sessions = SessionSockets(sessions, registry, upstream, upstream.others, database.is_shared, is_connected)
    own = OwnSockets(sessions, registry, records.gate, lambda: True)

    async def prepare(job: Job) -> None:
        await own.prepare(job)
        await of_sessions.prepare(job)

    return own, prepare, of_sessions


def _sessions(
    upstream: Upstream, reports: SocketReports, documents: JobDocuments, in_force: Callable[[], CompiledConfig]
) -> EventSessions:
    return EventSessions(
        upstream,
        reconnect_grace_s=lambda: in_force().config.server.reconnect_grace,
        reports=reports,
        read_entry=partial(read_ended, documents),
    )


def _admission(
    registry: JobRegistry,
    records: JobRecords,
    limits: Limits,
    events: JobEvents,
    watchers: QueueWatchers,
    kept: KeptDocuments,
    sessions: EventSessions,
    own: OwnSockets,
) -> JobAdmission:
    slots, budgets = limits.slots, limits.budgets
    has_job, listen, follow = watchers.has_job, sessions.listen, own.listen
    return JobAdmission(registry, records, slots, budgets, events.queued, has_job, kept, listen=listen, follow=follow)


def _gate_name() -> str:
    """Names this process among the gates that share a database; a gate that is started again is another one."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"

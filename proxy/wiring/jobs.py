"""Makes what follows jobs from their submission to their end, and gives each part what it needs."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from policy.namespace import Folder
from proxy.compiled_config import CompiledConfig
from proxy.jobs.admission import JobAdmission
from proxy.jobs.dispatcher import Dispatcher
from proxy.jobs.endings import JobEndings
from proxy.jobs.events import JobEvents, SocketReports
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.kept_documents import KeptJobs
from proxy.jobs.parts import JobParts
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.results import JobResults, read_ended
from proxy.jobs.temp_files import unseen, written_at
from proxy.limits.limits import Limits
from proxy.persistence.operations import Database
from proxy.upstream.client import Upstream
from proxy.websocket.event_sessions import EventSessions


def build_jobs(
    upstream: Upstream,
    database: Database,
    limits: Limits,
    events: JobEvents,
    kept: KeptJobs,
    directory: Path | None,
    in_force: Callable[[], CompiledConfig],
) -> tuple[JobParts, EventSessions]:
    """directory: ComfyUI's base folder, None where the gate does not see it. in_force: the configuration, when everything is built."""
    registry = JobRegistry(written_at=unseen if directory is None else written_at(directory / Folder.TEMP.value))
    records = JobRecords(
        database, registry, _gate_name(), lambda: in_force().config.jobs.window, limits.allotment.weights
    )
    replica, documents = JobReplica(database, registry, records), JobDocuments(database, registry)

    def retries() -> bool:
        return in_force().config.jobs.retry_interrupted

    endings = JobEndings(upstream, registry, records, documents, kept, retries, events.ended)
    watcher = QueueWatcher(upstream, registry, records, endings, on_started=events.started)
    streams = EventSessions(
        upstream,
        reconnect_grace_s=lambda: in_force().config.server.reconnect_grace,
        reports=SocketReports(registry, events, watcher.close_soon),
        read_entry=partial(read_ended, documents),
    )
    admission = JobAdmission(
        registry, records, limits.slots, limits.budgets, events.queued, watcher.has_job, kept, streams.listen
    )
    results = JobResults(upstream, registry, records, documents, admission, watcher.close_soon, events.canceled)
    dispatcher = Dispatcher(
        upstream,
        registry,
        records,
        replica,
        lambda: watcher.is_settled.is_set() and not watcher.closing.is_giving_back,
        endings.refused,
    )
    return JobParts(registry, records, replica, watcher, endings, admission, results, dispatcher), streams


def _gate_name() -> str:
    """Names this process among the gates that share a database; a gate that is started again is another one."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"

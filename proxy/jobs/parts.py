"""What follows jobs from their submission to their end. Made in proxy/wiring/jobs.py."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.jobs.admission import JobAdmission
from proxy.jobs.dispatcher import Dispatcher
from proxy.jobs.endings import JobEndings
from proxy.jobs.forecasts import JobForecasts
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.results import JobResults


@dataclass(frozen=True, slots=True)
class JobParts:
    registry: JobRegistry
    records: JobRecords
    replica: JobReplica
    watcher: QueueWatcher
    endings: JobEndings
    admission: JobAdmission
    results: JobResults
    dispatcher: Dispatcher
    documents: JobDocuments
    forecasts: JobForecasts

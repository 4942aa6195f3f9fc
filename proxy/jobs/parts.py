"""What follows jobs from their submission to their end. Made in proxy/wiring/jobs.py."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.jobs.admission import JobAdmission
from proxy.jobs.dispatcher import Dispatcher
from proxy.jobs.endings import JobEndings
from proxy.jobs.forecasts import JobForecasts
from proxy.jobs.job_documents import JobDocuments
from proxy.jobs.placing import Placing
from proxy.jobs.preparation import Preparation
from proxy.jobs.queue_watchers import QueueWatchers
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.replica import JobReplica
from proxy.jobs.results import JobResults


@dataclass(frozen=True, slots=True)
class JobParts:
    registry: JobRegistry
    records: JobRecords
    replica: JobReplica
    watchers: QueueWatchers
    endings: JobEndings
    admission: JobAdmission
    results: JobResults
    dispatcher: Dispatcher
    documents: JobDocuments
    forecasts: JobForecasts
    preparation: Preparation
    placing: Placing | None = None
    """None where there is one ComfyUI."""

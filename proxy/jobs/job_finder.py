"""Whether a job is there whose submission got no answer: in the registry, or in ComfyUI's queue or history."""

from __future__ import annotations

from policy.principal import Principal
from proxy.http.errors import UpstreamUnavailable
from proxy.jobs.history_reader import HistoryReader, HistoryUnreadable
from proxy.jobs.queue_watcher import QueueWatcher
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.persistence.operations import DatabaseUnavailable
from proxy.upstream.client import Upstream


class JobFinder:
    """What ComfyUI has and the registry had not is taken up, with its owner. Where the others go on with what it had, all of that is in the registry."""

    def __init__(self, upstream: Upstream, registry: JobRegistry, records: JobRecords, watcher: QueueWatcher) -> None:
        self._registry = registry
        self._records = records
        self._watcher = watcher
        self._history = HistoryReader(upstream)

    async def has(self, principal: Principal, prompt_id: str) -> bool:
        """Whether this caller has the job; an admin has everybody's.

        Raises UpstreamUnavailable, UpstreamTimeout, DatabaseUnavailable: not knowing is not a no.
        """
        if prompt_id in self._records.unsaid:
            raise DatabaseUnavailable("it is not known yet whether the job was recorded")
        if not self._registry.knows(prompt_id) and not self._watcher.absence.is_given_up:
            if not self._watcher.is_settled.is_set():
                raise UpstreamUnavailable
            if await self._watcher.has_job(prompt_id) and not self._registry.knows(prompt_id):
                try:
                    await self._watcher.take_entry(prompt_id, (await self._history.find(prompt_id)).entry)
                except HistoryUnreadable as error:
                    raise UpstreamUnavailable from error
        if principal.is_admin:
            return self._registry.knows(prompt_id)
        return self._registry.of(principal.tenant).owns(prompt_id)

    def place_of(self, principal: Principal, prompt_id: str) -> int:
        """As `OwnJobs.place_of`."""
        return self._registry.of(principal.tenant).place_of(prompt_id)

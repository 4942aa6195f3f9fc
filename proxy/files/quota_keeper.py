"""Cancels a tenant's waiting jobs when its storage is full: each of them was let in by what lay there when it was submitted."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from policy.principal import TenantId
from policy.rules.jobs import json_call
from proxy.files.quota import StorageQuota
from proxy.http.errors import TurnedAway, UpstreamTimeout, UpstreamUnavailable
from proxy.jobs.registry import Job, JobRegistry
from proxy.jobs.temp_files import Left
from proxy.observability.audit_log import AuditTrail
from proxy.tasks import Tasks
from proxy.upstream.client import Upstream

_LIMIT_S: Final = 10.0
_log = logging.getLogger("comfygate")


CancelWaiting = Callable[[TenantId, tuple[str, ...]], Awaitable[tuple[str, ...]]]


class QuotaKeeper:
    """cancel_waiting: ends those of the tenant's jobs that wait outside ComfyUI, and returns their ids; raises TurnedAway."""

    def __init__(
        self,
        upstream: Upstream,
        registry: JobRegistry,
        cancel_waiting: CancelWaiting,
        storage: StorageQuota,
        audit: AuditTrail,
    ) -> None:
        self._upstream = upstream
        self._registry = registry
        self._cancel_waiting = cancel_waiting
        self._storage = storage
        self._audit = audit
        self._tasks = Tasks()

    async def stop(self) -> None:
        await self._tasks.stop()

    def job_ended(self, job: Job) -> None:
        """It has written what it writes."""
        if self._registry.of(job.tenant).pending():
            self._tasks.start(self._look(job.tenant), "storage quota")

    def let_go(self, tenant: TenantId, names: dict[str, Left]) -> None:
        """Previews of its deleted jobs that nobody remembers any more, and so nobody counts."""
        self._tasks.start(self._storage.delete_previews(tenant, names), "let go previews")

    async def _look(self, tenant: TenantId) -> None:
        if not await self._storage.is_full(tenant):
            return
        waiting = list(self._registry.of(tenant).pending())
        if not waiting:
            return
        try:
            canceled = await self._cancel_waiting(tenant, tuple(waiting))
            left = [prompt_id for prompt_id in waiting if prompt_id not in canceled]
            if left:
                await self._upstream.ask(json_call("POST", ("queue",), {"delete": left}, left), time_limit_s=_LIMIT_S)
        except (TurnedAway, UpstreamTimeout, UpstreamUnavailable) as error:
            _log.warning("jobs of tenant %s cannot be cancelled, though its storage is full (%s)", tenant, error)
            return
        _log.warning("the storage of tenant %s is full: %d waiting jobs are cancelled", tenant, len(waiting))
        self._audit.write("cancelled", tenant=tenant, reason="storage-full", prompt_ids=waiting)

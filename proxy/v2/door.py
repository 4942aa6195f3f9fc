"""Carries out what the rules of the API ask for."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from policy.principal import Principal, TenantId
from policy.v2.effects import (
    AddAsset,
    CancelJob,
    DeleteAsset,
    DrawSeeds,
    FindAssets,
    FindHash,
    ForecastStart,
    ListJobs,
    ReadJob,
    ReadText,
    ReuseBytes,
    V2Effect,
)
from policy.v2.jobs import JobView
from proxy.jobs.forecasts import JobForecasts
from proxy.jobs.job import Job, JobState
from proxy.jobs.records import JobRecords
from proxy.jobs.registry import JobRegistry
from proxy.jobs.results import JobResults
from proxy.persistence.operations import DatabaseUnavailable
from proxy.v2.assets import Assets
from proxy.v2.job_views import JobViews


class V2Door:
    def __init__(
        self,
        views: JobViews,
        assets: Assets,
        registry: JobRegistry,
        records: JobRecords,
        results: JobResults,
        forecasts: JobForecasts,
        on_unwanted: Callable[[Job], None],
    ) -> None:
        """on_unwanted: called with a job that ComfyUI has, and whose end somebody has asked for."""
        self._views = views
        self._assets = assets
        self._registry = registry
        self._records = records
        self._results = results
        self._forecasts = forecasts
        self._on_unwanted = on_unwanted
        self.with_links: Callable[[TenantId, JobView], Awaitable[JobView]] | None = None
        """Where what jobs made is copied: adds links to the copies; raises DatabaseUnavailable."""

    async def find(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        """None for what is not the tenant's. Raises DatabaseUnavailable, UpstreamUnavailable, UpstreamTimeout."""
        found = await self._views.find(tenant, prompt_id)
        return found if found is None or self.with_links is None else await self.with_links(tenant, found)

    async def perform(self, principal: Principal, step: V2Effect) -> Any:
        """Raises DatabaseUnavailable, Violation where the effect says so, and UpstreamUnavailable, UpstreamTimeout where ComfyUI has to be asked."""
        tenant = principal.tenant
        match step:
            case ReadJob():
                return await self._read(tenant, step)
            case CancelJob():
                return await self._cancel(tenant, step.prompt_id)
            case ListJobs():
                return await self._views.page(tenant, step)
            case ForecastStart():
                return await self._forecasts.start_of(tenant, step.prompt_id)
            case DrawSeeds():
                return tuple(low + secrets.randbelow(high - low + 1) for low, high in step.bounds)
            case FindAssets():
                return await self._assets.find(tenant, step.asset_ids, is_for_comfyui=step.is_for_comfyui)
            case FindHash():
                return await self._assets.find_hash(tenant, step.hash)
            case AddAsset():
                return await self._assets.add(tenant, step.asset, step.expires_in_s)
            case ReuseBytes():
                return await self._assets.reuse(tenant, step.hash, step.details)
            case ReadText():
                return await self._assets.text(tenant, step.asset_id)
            case DeleteAsset():
                return await self._assets.delete(tenant, step.asset_id)
        raise AssertionError(f"no such effect: {type(step).__name__}")

    async def _read(self, tenant: TenantId, step: ReadJob) -> JobView | None:
        if step.labels is None:
            return await self.find(tenant, step.prompt_id)
        try:
            return await self._views.accepted(tenant, step.prompt_id, step.labels)
        except DatabaseUnavailable:
            return None  # it is on disk, and ComfyUI may run it: that it cannot be shown is no reason to let it go

    async def _cancel(self, tenant: TenantId, prompt_id: str) -> JobView | None:
        """One that waits has ended then; of one that ComfyUI has it is written down first, and then ComfyUI is asked."""
        if self._registry.of(tenant).owns(prompt_id):
            job = self._registry.job(prompt_id)
            if job is not None and job.state is JobState.WAITING:
                await self._results.cancel_waiting(tenant, (prompt_id,))
                job = self._registry.job(prompt_id)  # it may have been given in this moment
            if job is not None and job.state is not JobState.ENDED and not job.is_over:
                await self._records.unwanted(job)
                self._on_unwanted(job)
                self._results.cancel(job)
        return await self.find(tenant, prompt_id)

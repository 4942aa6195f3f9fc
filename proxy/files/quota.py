"""Quotas and retention of what tenants store; only where the gate can see ComfyUI's folders."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from policy.principal import TenantId
from policy.violation import Reason, Violation
from proxy.config.limits import LimitSettings
from proxy.files.comfyui_folders import ComfyUIFolders
from proxy.jobs.registry import JobRegistry
from proxy.jobs.temp_files import Left

_SWEEP_INTERVAL_S: Final = 3600.0
_EVERY_AGE_S: Final = 1e9
_log = logging.getLogger("comfygate")


class StorageQuota:
    """limits_of: a tenant's, as the configuration in force says. tenants: all that it names. disk: None where the gate cannot see the folders."""

    def __init__(
        self,
        disk: ComfyUIFolders | None,
        registry: JobRegistry,
        limits_of: Callable[[TenantId], LimitSettings],
        tenants: Callable[[], Iterable[TenantId]],
    ) -> None:
        self.disk = disk
        self._registry = registry
        self._limits_of = limits_of
        self._tenants = tenants
        self._held: Counter[TenantId] = Counter()

    async def remaining_bytes(self, tenant: TenantId, quota: int | None) -> int | None:
        """How much of its quota the tenant may still store, None without one. Raises Violation(storage-full) when that is nothing."""
        if quota is None or self.disk is None:
            return None
        room = quota - await self._used_bytes(self.disk, tenant) - self._held[tenant]
        if room <= 0:
            raise self.quota_exceeded(quota)
        return room

    async def is_full(self, tenant: TenantId) -> bool:
        """Whether the tenant has no room left, counted now: what waits of its jobs would store more."""
        quota = self._limits_of(tenant).storage
        return (
            quota is not None
            and self.disk is not None
            and await self._used_bytes(self.disk, tenant, is_fresh=True) >= quota
        )

    async def _used_bytes(self, disk: ComfyUIFolders, tenant: TenantId, *, is_fresh: bool = False) -> int:
        previews = self._registry.old_temp_files(tenant, -_EVERY_AGE_S)
        return await disk.usage_bytes(tenant, previews, is_fresh=is_fresh)

    @contextmanager
    def reserve(self, tenant: TenantId, amount_bytes: int) -> Iterator[None]:
        """Keeps room for a body that is on its way. SECURITY: else many at once pass the quota together (tests/security/test_quota.py)."""
        self._held[tenant] += amount_bytes
        try:
            yield
        finally:
            self._held[tenant] -= amount_bytes

    @staticmethod
    def quota_exceeded(quota: int | None) -> Violation:
        """What a call beyond the tenant's quota is refused with."""
        return Violation(
            Reason.STORAGE_FULL,
            "Your storage is full: delete files you no longer need, or ask the operator for more.",
            f"The quota is {quota} bytes.",
        )

    def add_usage(self, tenant: TenantId, amount_bytes: int) -> None:
        if self.disk is not None:
            self.disk.add(tenant, amount_bytes)

    async def sweep_forever(self) -> None:
        """Deletes what is older than each tenant's retention, now and every hour."""
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_INTERVAL_S)

    async def sweep(self) -> None:
        if self.disk is None:
            return
        for tenant in self._tenants():
            limits = self._limits_of(tenant)
            if limits.retention is None:
                continue
            try:
                await self._sweep(self.disk, tenant, limits.retention)
            except OSError as error:
                _log.error("retention: old files of tenant %s cannot be deleted: %s", tenant, error)

    async def delete_previews(self, tenant: TenantId, names: Mapping[str, Left]) -> None:
        """Of deleted jobs, where the tenant's storage is bounded: what is counted no more would be room beyond its quota."""
        limits = self._limits_of(tenant) if tenant in self._tenants() else None
        if self.disk is not None and limits is not None and (limits.storage or limits.retention) is not None:
            await self.disk.delete_temp(tuple(names.items()))

    async def _sweep(self, disk: ComfyUIFolders, tenant: TenantId, age_s: float) -> None:
        old = self._registry.old_temp_files(tenant, age_s)
        self._registry.temp_files.forget(old)
        await disk.delete_temp(old)
        deleted = await disk.delete_older(tenant, age_s)
        if deleted:
            _log.info("retention: deleted %d old files of tenant %s", deleted, tenant)

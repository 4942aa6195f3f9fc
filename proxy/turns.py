"""One at a time per tenant, for rules that read, change and write back; or a few, where answers are large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from policy.principal import TenantId


class Turns:
    """Places that exist only while somebody holds or wants them. places: of each tenant."""

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._locks: dict[TenantId, asyncio.Semaphore] = {}
        self._wanted: dict[TenantId, int] = {}

    @asynccontextmanager
    async def of(self, tenant: TenantId) -> AsyncIterator[None]:
        lock = self._locks.setdefault(tenant, asyncio.Semaphore(self._places))
        self._wanted[tenant] = self._wanted.get(tenant, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[tenant] -= 1
            if not self._wanted[tenant]:
                del self._wanted[tenant], self._locks[tenant]

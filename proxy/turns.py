"""One at a time per tenant, for rules that read, change and write back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from policy.principal import TenantId


class Turns:
    """Locks that exist only while somebody holds or wants them."""

    def __init__(self) -> None:
        self._locks: dict[TenantId, asyncio.Lock] = {}
        self._wanted: dict[TenantId, int] = {}

    @asynccontextmanager
    async def of(self, tenant: TenantId) -> AsyncIterator[None]:
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        self._wanted[tenant] = self._wanted.get(tenant, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._wanted[tenant] -= 1
            if not self._wanted[tenant]:
                del self._wanted[tenant], self._locks[tenant]

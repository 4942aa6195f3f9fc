"""When a tenant's clients are sent how many of its jobs wait and run: at once, and what changes soon after that a little later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId

COUNT_EACH_S: Final = 0.02
"""Each job changes the count three times, for all sockets of its tenant."""

Later = Callable[[float, Callable[[TenantId], None], TenantId], object]


def _later(delay_s: float, callback: Callable[[TenantId], None], tenant: TenantId) -> object:
    return asyncio.get_running_loop().call_later(delay_s, callback, tenant)


class PacedCounts:
    """tell: sends the count as it is by then. later: calls back after so many seconds."""

    def __init__(self, tell: Callable[[TenantId], None], later: Later = _later) -> None:
        self._tell = tell
        self._later = later
        self._told: dict[TenantId, bool] = {}
        """Who was told just now, and whether it has changed since."""

    def changed(self, tenant: TenantId) -> None:
        if tenant in self._told:
            self._told[tenant] = True
            return
        self._told[tenant] = False
        self._later(COUNT_EACH_S, self._look, tenant)
        self._tell(tenant)

    def _look(self, tenant: TenantId) -> None:
        if self._told.pop(tenant):
            self.changed(tenant)

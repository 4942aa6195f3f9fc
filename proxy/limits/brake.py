"""Slows down who goes on asking after it was told to wait: a refusal that comes late costs the gate less than thousands that come at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from policy.principal import Principal, TenantId

FREE: Final = 20
"""Refusals of one caller that are answered at once: a page that asks for many files together is no flood."""
PER_S: Final = 1.0
"""So many of them are forgiven in a second. Retry-After is one second at least, so whoever heeds it stays below."""
WAIT_S: Final = 1.0
"""The least that a refusal waits; with many connections it waits longer, so that a tenant has some thirty of them in a second, however many it opens."""
WAITING_PER_S: Final = 32
MAX_WAITING: Final = 512
"""Of one tenant: each holds a connection, and idle ones are closed where places run out. The others are answered at once."""
MAX_CALLERS: Final = 4096


@dataclass(slots=True)
class _Refused:
    count: float
    at_s: float


class Brake:
    """A refused flood gets its next answer a second later, or later still, so that no number of connections makes it a burden.

    SECURITY: thousands of refusals a second would keep the event loop from the neighbours (tests/security/test_floods.py).
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._callers: OrderedDict[tuple[str, str], _Refused] = OrderedDict()
        self._waiting: dict[TenantId, int] = {}

    def waiting(self, tenant: TenantId) -> int:
        """How many refusals of the tenant are held back now."""
        return self._waiting.get(tenant, 0)

    async def refused(self, principal: Principal) -> None:
        """Counts one refusal, and returns when it may be told."""
        tenant = principal.tenant
        if self._count(principal) <= FREE or self.waiting(tenant) >= MAX_WAITING:
            return
        self._waiting[tenant] = self.waiting(tenant) + 1
        try:
            await self._sleep(max(WAIT_S, self._waiting[tenant] / WAITING_PER_S))
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    def _count(self, principal: Principal) -> float:
        context, now_s = (principal.tenant, principal.subject), self._clock()
        found = self._callers.get(context)
        if found is None:
            if len(self._callers) >= MAX_CALLERS:
                self._callers.popitem(last=False)
            found = self._callers[context] = _Refused(0.0, now_s)
        self._callers.move_to_end(context)
        # Bounded above: a flood of an hour is forgiven in as many seconds as one of a moment.
        found.count = min(2.0 * FREE, max(0.0, found.count - (now_s - found.at_s) * PER_S) + 1)
        found.at_s = now_s
        return found.count

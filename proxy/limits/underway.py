"""How many requests of one tenant are under way at once: the others wait for a place, so many and so long."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.effective_limits import EffectiveLimits

WAITING_PER_PLACE: Final = 4
"""A page of the web UI asks for hundreds of files at once."""
WAITING_PART: Final = 4
"""All that wait hold one such part of the gate's connections at most."""
WAIT_S: Final = 30.0
ACTIVE_S: Final = 30.0
"""Who asked for something so lately is there."""
_RETRY_S: Final = 2.0


@dataclass(slots=True)
class _Crowd:
    """One tenant's. version: of the limits that `limit` is from."""

    limit: int | None = None
    version: int = -1
    running: int = 0
    asked_at_s: float = 0.0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class UnderWay:
    """Counted by each gate for itself: what is bounded is its connections and its memory.

    A tenant may wait with half of the connections that the others leave, at most: so one more may, however many do.

    SECURITY: one tenant that does not read its answers would take all connections, or a few tenants together (tests/security/test_connections.py).
    """

    def __init__(self, allotment: EffectiveLimits, max_connections: Callable[[], int]) -> None:
        """max_connections: of the gate, as it is configured now."""
        self._allotment = allotment
        self._max_connections = max_connections
        self._crowds: dict[TenantId, _Crowd] = {}

    def has_neighbours(self, tenant: TenantId) -> bool:
        """Whether another tenant is there."""
        now_s = time.monotonic()
        return any(other != tenant and now_s - crowd.asked_at_s < ACTIVE_S for other, crowd in self._crowds.items())

    def running(self, tenant: TenantId) -> int:
        crowd = self._crowds.get(tenant)
        return crowd.running if crowd is not None else 0

    def enter_at_once(self, tenant: TenantId) -> bool:
        """Takes a place, until `leave`, where one is free."""
        crowd = self._crowds.get(tenant)
        if crowd is None or crowd.version != self._allotment.version:
            crowd = self._crowd(tenant)
        crowd.asked_at_s = time.monotonic()
        if crowd.limit is not None and crowd.running >= crowd.limit:
            return False
        crowd.running += 1
        return True

    async def enter(self, tenant: TenantId) -> None:
        """Takes a place, until `leave`. Raises LimitExceeded(too-many-requests) when too many wait already, or no place came free in time."""
        if self.enter_at_once(tenant):
            return
        crowd = self._crowd(tenant)
        limit = crowd.limit or 0
        if len(crowd.waiting) >= self._may_wait(crowd, limit):
            raise _too_many(limit)
        turn = asyncio.get_running_loop().create_future()
        crowd.waiting.append(turn)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(tenant)  # the place came in the moment in which nobody wanted it any more
            elif turn in crowd.waiting:
                crowd.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _too_many(limit) from None
            raise

    def _may_wait(self, crowd: _Crowd, limit: int) -> int:
        others = sum(len(other.waiting) for other in self._crowds.values() if other is not crowd)
        left = self._max_connections() // WAITING_PART - others
        return min(WAITING_PER_PLACE * limit, (left + 1) // 2)

    def leave(self, tenant: TenantId) -> None:
        crowd = self._crowds[tenant]
        crowd.running -= 1
        if crowd.waiting:
            self._let_in(self._crowd(tenant))

    def _let_in(self, crowd: _Crowd) -> None:
        while crowd.waiting and (crowd.limit is None or crowd.running < crowd.limit):
            turn = crowd.waiting.popleft()
            if not turn.done():
                crowd.running += 1
                turn.set_result(None)

    def _crowd(self, tenant: TenantId) -> _Crowd:
        """Kept when it is empty: there are as many as tenants."""
        crowd = self._crowds.get(tenant)
        if crowd is None:
            crowd = self._crowds[tenant] = _Crowd()
        if crowd.version != self._allotment.version:
            crowd.version = self._allotment.version
            crowd.limit = self._allotment.of_tenant(tenant).concurrent_requests
        return crowd


def _too_many(limit: int) -> LimitExceeded:
    words = f"{limit} requests of the tenant"
    return LimitExceeded(
        f"{words} are under way already, and others wait. Read the answers, or send fewer at once.",
        limit=words,
        retry_after_s=_RETRY_S,
        reason="too-many-requests",
    )

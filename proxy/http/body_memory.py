"""Room for the bodies that the gate holds while it judges them: so many bytes in all, and of one tenant."""

from __future__ import annotations

import asyncio
from typing import Final

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded

MAX_BYTES: Final = 128 * 1024**2
"""Of all bodies that are held at once."""
MAX_TENANT_BYTES: Final = 32 * 1024**2
SURE_PART: Final = 512
"""One such part is each tenant's, whatever others hold: 256 KiB, for lists of ids and nearly all workflows."""
WAIT_S: Final = 10.0
_RETRY_S: Final = 5.0


class BodyRoom:
    """Bytes that are taken before they are read: a client whose place is taken is not read from, so TCP holds it back.

    A tenant has half of what the others leave, at most: so there is room for one more, however many hold all that they may.

    SECURITY: bodies that are large, many and slow would fill the gate's memory, or take the room of all who send none (tests/security/test_bodies.py).
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_tenant_bytes: int = MAX_TENANT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_tenant_bytes = max_tenant_bytes
        self._held: dict[TenantId, int] = {}
        self._total = 0
        self._freed: asyncio.Event | None = None
        """While somebody waits for it."""

    @property
    def held_bytes(self) -> int:
        return self._total

    def place(self, tenant: TenantId) -> BodyPlace:
        return BodyPlace(self, tenant)

    def has_room(self, tenant: TenantId, more: int) -> bool:
        """Whether so many bytes more fit. One body alone always fits, however the bounds stand to it."""
        held = self._held.get(tenant, 0)
        left = self._max_bytes - (self._total - held)
        share = max(self._max_bytes // SURE_PART, min(self._max_tenant_bytes, left // 2))
        is_larger_than_any_share = more > self._max_tenant_bytes
        return held + more <= share or (not held and is_larger_than_any_share and more <= left) or not self._total

    async def take(self, tenant: TenantId, more: int, wait_s: float) -> None:
        """Waits for room at most that long. Raises LimitExceeded(bodies-full)."""
        if not self.has_room(tenant, more):
            try:
                async with asyncio.timeout(wait_s):
                    while not self.has_room(tenant, more):
                        self._freed = self._freed or asyncio.Event()
                        await self._freed.wait()
            except TimeoutError:
                raise LimitExceeded(
                    "Too many large bodies are being sent at once. Try again in a moment.",
                    limit=f"{self._max_tenant_bytes} bytes of the tenant",
                    retry_after_s=_RETRY_S,
                    reason="bodies-full",
                ) from None
        self._held[tenant] = self._held.get(tenant, 0) + more
        self._total += more

    def give_back(self, tenant: TenantId, amount: int) -> None:
        self._held[tenant] -= amount
        if not self._held[tenant]:
            del self._held[tenant]
        self._total -= amount
        if self._freed is not None:  # all that wait look again, those that come later wait for the next one
            self._freed.set()
            self._freed = None


class BodyPlace:
    """The room of one body; a context manager that gives it back."""

    def __init__(self, room: BodyRoom, tenant: TenantId, wait_s: float = WAIT_S) -> None:
        self._room = room
        self._tenant = tenant
        self._wait_s = wait_s
        self._held = 0

    async def hold(self, amount: int) -> None:
        """Has room for so many bytes in all from now on. Raises LimitExceeded(bodies-full)."""
        if amount > self._held:
            await self._room.take(self._tenant, amount - self._held, self._wait_s)
            self._held = amount

    def __enter__(self) -> BodyPlace:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            held, self._held = self._held, 0
            self._room.give_back(self._tenant, held)

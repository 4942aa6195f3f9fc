"""Work on large documents: in a thread, one at a time, tenants in turn; and the large workflows of one tenant come one after the other.

A thread leaves the event loop only as far as it leaves the interpreter's lock: two of them would hold it between each two steps of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.limits.lane import Lane

WORK_BYTES: Final = 32 * 1024
"""What is more work than that is done in a thread."""
SPACED_BYTES: Final = 128 * 1024
"""A workflow of more than that comes when the one before it had its time; ComfyUI reads so much in some milliseconds."""
BYTES_PER_S: Final = 2 * 1024**2
"""Of one tenant's large workflows: ComfyUI reads each of them on its event loop, and a neighbour's comes in between."""
MAX_WAITING: Final = 128
"""Of one tenant."""
WAIT_S: Final = 60.0
_RETRY_S: Final = 5.0

T = TypeVar("T")


class HeavyWork(Lane):
    """SECURITY: large documents of one tenant keep the event loops of the gate and of ComfyUI from the neighbours (tests/security/test_heavy.py)."""

    max_waiting = MAX_WAITING
    wait_s = WAIT_S

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._sleep = sleep
        self._next_s: dict[TenantId, float] = {}

    def refusal(self) -> LimitExceeded:
        return LimitExceeded(
            "Too many large documents of this tenant wait to be read. Send them one after the other.",
            limit=f"{MAX_WAITING} large documents of the tenant, {BYTES_PER_S} bytes a second",
            retry_after_s=_RETRY_S,
            reason="too-many-documents",
        )

    async def run(self, tenant: TenantId, function: Callable[[], T], size: int) -> T:
        """The result of a pure function of so many bytes, at once when they are few. Raises LimitExceeded(too-many-documents), and what it raises."""
        if size <= WORK_BYTES:
            return function()
        with self.turn(tenant) as turn:
            await turn.take()
            working = asyncio.ensure_future(asyncio.to_thread(function))  # noqa: TID251 - awaited here
            try:
                return await asyncio.shield(working)
            finally:
                # A thread cannot be stopped: the turn lasts as long as it does, also when nobody wants its result any more.
                if not working.done():
                    turn.hand_to(working)

    async def space(self, tenant: TenantId, size: int) -> None:
        """Returns when this large workflow may come: the one before it had its time. Raises LimitExceeded(too-many-documents)."""
        if size <= SPACED_BYTES:
            return
        now_s = self._clock()
        self._next_s = {other: next_s for other, next_s in self._next_s.items() if next_s > now_s}
        begins_s = self._next_s.get(tenant, now_s)
        if begins_s - now_s > WAIT_S:
            raise self.refusal()
        self._next_s[tenant] = begins_s + size / BYTES_PER_S
        if begins_s > now_s:
            await self._sleep(begins_s - now_s)

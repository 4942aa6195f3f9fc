"""Pictures that ComfyUI makes for a call (previews, channels, masks): it does so on its event loop, so one at a time, tenants in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded
from proxy.http.multipart_upload import UploadStream
from proxy.limits.lane import Lane, Turn

MAX_WAITING: Final = 32
"""Of one tenant."""
WAIT_S: Final = 60.0
HEAVY_S: Final = 0.1
"""A picture that takes longer is felt by everybody who asks ComfyUI for something meanwhile."""
REST: Final = 100
"""So many times as long as such a picture took, its tenant's next one leaves ComfyUI to its neighbours, where there are any."""
MAX_REST_S: Final = 30.0
_RETRY_S: Final = 3.0


class PreviewQueue(Lane):
    """SECURITY: a picture of few bytes and many pixels keeps ComfyUI from everybody for seconds (tests/security/test_previews.py)."""

    max_waiting = MAX_WAITING
    wait_s = WAIT_S

    def __init__(
        self,
        has_neighbours: Callable[[TenantId], bool] = lambda tenant: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """has_neighbours: whether another tenant is there, whom a heavy picture would hold up."""
        super().__init__()
        self._has_neighbours = has_neighbours
        self._clock = clock
        self._rests_until_s: dict[TenantId, float] = {}
        self._resting: dict[TenantId, int] = {}
        self._holder: tuple[TenantId, float] | None = None

    async def take(self, tenant: TenantId) -> None:
        """Raises LimitExceeded when too many of the tenant's wait or rest, or for too long."""
        ends_s = self._clock() + self.wait_s
        while True:
            await super().take(tenant)
            rest_s = self._rests_until_s.get(tenant, 0.0) - self._clock()
            if rest_s <= 0 or not self._has_neighbours(tenant):
                self._rests_until_s.pop(tenant, None)
                self._holder = (tenant, self._clock())
                return
            super().release()
            if self._clock() + rest_s > ends_s or self._resting.get(tenant, 0) >= MAX_WAITING:
                raise self.refusal(rest_s)
            await self._rest(tenant, rest_s)

    async def _rest(self, tenant: TenantId, rest_s: float) -> None:
        self._resting[tenant] = self._resting.get(tenant, 0) + 1
        try:
            await asyncio.sleep(rest_s)
        finally:
            self._resting[tenant] -= 1
            if not self._resting[tenant]:
                del self._resting[tenant]

    def release(self) -> None:
        if self._holder is not None:
            (tenant, began_s), self._holder = self._holder, None
            took_s = self._clock() - began_s
            if took_s > HEAVY_S:
                self._rests_until_s[tenant] = self._clock() + min(REST * took_s, MAX_REST_S)
        super().release()

    def refusal(self, retry_after_s: float = _RETRY_S) -> LimitExceeded:
        return LimitExceeded(
            "Too many pictures of this tenant wait to be made smaller. Ask for fewer at once.",
            limit=f"{MAX_WAITING} pictures of the tenant",
            retry_after_s=retry_after_s,
            reason="too-many-pictures",
        )


async def wait_for(turn: Turn, content: object) -> None:
    """ComfyUI begins with a mask when it has all of it; its client may take long to send it, and delays nobody."""
    if isinstance(content, UploadStream):
        content.before_end = turn.take
    else:
        await turn.take()

"""How much of a tenant's ComfyUI holds in memory: packs keep what was put under an id for minutes, and bound it for all tenants together at most."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from policy.principal import TenantId
from proxy.http.errors import LimitExceeded

MAX_BYTES: Final = 512 * 1024**2
KEPT_S: Final = 600.0
"""How long the tooling nodes keep a picture that nobody reads (comfyui-tooling-nodes, nodes.py, ImageCache)."""

_TOGETHER_S: Final = 1.0
"""What comes within this is one entry."""


class HeldBytes:
    """SECURITY: a tenant within its limits for uploads could fill the memory of the machine (tests/proxy/limits/test_held_bytes.py)."""

    def __init__(
        self, max_bytes: int = MAX_BYTES, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._kept_s = kept_s
        self._clock = clock
        self._held: dict[TenantId, deque[tuple[float, int]]] = {}
        self._total: dict[TenantId, int] = {}

    def add(self, tenant: TenantId, amount: int) -> None:
        """Raises LimitExceeded, and counts nothing, when that is more than the tenant may have there."""
        self._forget_old(tenant)
        held = self._held.setdefault(tenant, deque())
        total = self._total.get(tenant, 0)
        if total + amount > self._max_bytes:
            oldest_s = held[0][0] if held else self._clock()
            raise LimitExceeded(
                "ComfyUI holds as much of yours in memory as it may. Try again when some of it has been forgotten.",
                limit=f"{self._max_bytes // 1024**2} MiB in {self._kept_s / 60:.0f} minutes",
                retry_after_s=max(1.0, oldest_s + self._kept_s - self._clock()),
                reason="ids-full",
            )
        at_s = self._clock()
        if held and at_s - held[-1][0] < _TOGETHER_S:
            at_s, earlier = held.pop()
            amount += earlier
            total -= earlier
        held.append((at_s, amount))
        self._total[tenant] = total + amount

    def _forget_old(self, tenant: TenantId) -> None:
        held = self._held.get(tenant)
        while held and held[0][0] + self._kept_s <= self._clock():
            self._total[tenant] -= held.popleft()[1]
        if held is not None and not held:
            del self._held[tenant]
            self._total.pop(tenant, None)

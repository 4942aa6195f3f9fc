"""How long a client may take, for what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ClientLimits:
    """All in seconds. stall_s: how long it may read less than bytes_per_second. header_s: for a head that was begun, or the first one.

    keepalive_s: until its next request; unproven_idle_s where it has shown no credential. lingering_s: for what it still sends when it is answered.
    """

    stall_s: float
    bytes_per_second: int
    header_s: float
    keepalive_s: float
    unproven_idle_s: float
    lingering_s: float

    @cached_property
    def look_every_s(self) -> float:
        return min(self.stall_s, self.header_s, self.keepalive_s, self.unproven_idle_s, self.lingering_s) / 4

    @cached_property
    def bytes_between_looks(self) -> int:
        return max(1, int(self.bytes_per_second * self.look_every_s))

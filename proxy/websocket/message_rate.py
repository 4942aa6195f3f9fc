"""How much a WebSocket's client may send: ComfyUI hears one message of each, so a few a second are more than any needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MESSAGES: Final = 100.0
"""As many at once, then MESSAGES_PER_S."""
MESSAGES_PER_S: Final = 10.0
BYTES: Final = 8.0 * 1024**2
BYTES_PER_S: Final = 64.0 * 1024


class MessageRate:
    """Two buckets that refill with time: messages, and bytes."""

    __slots__ = ("_at_s", "_bytes", "_clock", "_messages")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages = MESSAGES
        self._bytes = BYTES
        self._at_s = clock()

    def takes(self, size: int) -> bool:
        """Counts one message of that size; whether it was within the rate."""
        now_s = self._clock()
        passed_s, self._at_s = now_s - self._at_s, now_s
        self._messages = min(MESSAGES, self._messages + passed_s * MESSAGES_PER_S) - 1
        self._bytes = min(BYTES, self._bytes + passed_s * BYTES_PER_S) - size
        return self._messages >= 0 and self._bytes >= 0

"""When something that failed is tried again: ten times, over a day (the schedule of Standard Webhooks, standardwebhooks.com, version 1)."""

from __future__ import annotations

from typing import Final

SCHEDULE_S: Final = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""When it is tried, counted from the first attempt."""
JITTER: Final = 0.1
"""By which share of itself a wait is longer at most, so that who was down is not asked for everything at one moment."""
MAX_WAIT_S: Final = 86_400.0


def wait_after(attempts: int, chance: float, asked_s: float | None = None) -> float | None:
    """Seconds until the next attempt after so many that failed; None: there is none. chance: from 0 to 1. asked_s: what the other side asked for."""
    if attempts >= len(SCHEDULE_S):
        return None
    wait_s = (SCHEDULE_S[attempts] - SCHEDULE_S[attempts - 1]) * (1 + JITTER * chance)
    return wait_s if asked_s is None else max(wait_s, min(asked_s, MAX_WAIT_S))

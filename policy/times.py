"""Points in time as they are written."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def utc(at_s: float) -> str:
    """RFC 3339, 5.6, to the millisecond and without its offset, which is that of UTC. at_s: Unix time."""
    second, micros = divmod(round(at_s * 1_000_000), 1_000_000)
    return f"{_second(second)}.{micros // 1000:03d}"


@lru_cache(maxsize=64)  # much happens in one second, and what is kept of it ends in one second too
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]

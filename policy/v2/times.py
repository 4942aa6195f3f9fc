"""Times as the API writes them."""

from __future__ import annotations

from functools import lru_cache

from policy.times import utc


@lru_cache(maxsize=4096)  # who polls a job is told the same times again and again
def timestamp(at_s: float) -> str:
    """RFC 3339 in UTC with `Z`, to the millisecond. at_s: Unix time.

    The schemas that the SDKs export take no other offset, and no time without one.
    """
    return f"{utc(at_s)}Z"


def timestamp_or_null(at_s: float | None) -> str | None:
    return None if at_s is None else timestamp(at_s)

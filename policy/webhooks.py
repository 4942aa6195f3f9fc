"""What is told of a job's end, and when it is told again: the rules of Standard Webhooks (standardwebhooks.com, version 1)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from policy.v2.jobs import JobView, Status, job_to_client
from policy.v2.links import Links
from policy.v2.times import timestamp

CALLS: Final = "(calls)"
"""In the place of an endpoint's name: the addresses that a tenant's calls have named."""
MAX_BODY_BYTES: Final = 16 * 1024
MAX_ERROR_TEXT: Final = 1000
_SLOW_DOWN: Final = frozenset({429, 502, 503, 504})


class Event(StrEnum):
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"


class Result(StrEnum):
    """Of one attempt. gone: the receiver wants no more."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"


def event_of(state: str) -> Event:
    """state: one of a job's ends (`Status`)."""
    return Event(f"job.{Status(state).value}")


def result_of(status: int) -> Result:
    """Of an answer. A redirect is a failure: it is not followed."""
    if status == 410:
        return Result.GONE
    return Result.DELIVERED if 200 <= status < 300 else Result.FAILED


def asked_wait(status: int, retry_after: str | None, now_s: float) -> float | None:
    """Retry-After (RFC 9110, 10.2.3) of an answer that may carry it; None for none, or for what cannot be read."""
    text = (retry_after or "").strip()
    if status not in _SLOW_DOWN or not text:
        return None
    if text.isascii() and text.isdecimal():
        return float(text[:9])  # beyond it is beyond MAX_WAIT_S too
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def message(job: JobView, links: Links, *, has_all_outputs: bool = True) -> bytes:
    """The body. job: one that has ended. Where the outputs are not all known, or are too many, `outputs_complete` is false, and `urls.self` has them."""
    shown = job_to_client(job, links)
    shown["urls"] = {name: f"{links.origin}{path}" for name, path in shown["urls"].items()}
    body = _body(job, shown if has_all_outputs else {**shown, "outputs_complete": False})
    if len(body) <= MAX_BODY_BYTES:
        return body
    shown |= {"outputs": [], "outputs_complete": False}
    if shown["error"] is not None:
        shown["error"] = {**shown["error"], "message": shown["error"]["message"][:MAX_ERROR_TEXT]}
    return _body(job, shown)


def _body(job: JobView, shown: dict[str, Any]) -> bytes:
    at = timestamp(job.updated_at_s)
    return orjson.dumps({"type": event_of(job.status).value, "timestamp": at, "data": shown})

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
    """stored: the operator's storage has all that the job made. storage_failed: it will not have all, unless the operator does something."""

    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"
    STORED = "job.stored"
    STORAGE_FAILED = "job.storage_failed"


ENDS: Final = (Event.SUCCEEDED, Event.FAILED, Event.CANCELED)
OF_STORAGE: Final = (Event.STORED, Event.STORAGE_FAILED)


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


def message(
    job: JobView,
    links: Links,
    *,
    has_all_outputs: bool = True,
    event: Event | None = None,
    at_s: float | None = None,
) -> bytes:
    """The body. job: one that has ended. event, at_s: what has happened since, and when (Unix time); None for the end itself.

    Where the outputs are not all known, or are too many, `outputs_complete` is false, and `urls.self` has them.
    """
    shown = job_to_client(job, links)
    shown["urls"] = {name: f"{links.origin}{path}" for name, path in shown["urls"].items()}
    event, at_s = event or event_of(job.status), job.updated_at_s if at_s is None else at_s
    body = _body(event, at_s, shown if has_all_outputs else {**shown, "outputs_complete": False})
    if len(body) <= MAX_BODY_BYTES:
        return body
    shown |= {"outputs": [], "outputs_complete": False}
    if shown["error"] is not None:
        shown["error"] = {**shown["error"], "message": shown["error"]["message"][:MAX_ERROR_TEXT]}
    return _body(event, at_s, shown)


def _body(event: Event, at_s: float, shown: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": event.value, "timestamp": timestamp(at_s), "data": shown})

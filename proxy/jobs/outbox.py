"""That a job has ended is written down for whoever outside is to be told, with the end itself: so nobody is told of what did not come to be, and a gate
that is killed forgets nobody. proxy/webhooks/ sends it.
"""

from __future__ import annotations

import hashlib

from policy.webhooks import CALLS, event_of
from proxy.jobs.copy_requests import request_copies
from proxy.jobs.job_rows import JobRow
from proxy.persistence.operations import Operation, Statement


def announce(job: JobRow, *, is_past: bool = False, is_copied: bool = False) -> Operation[None]:
    """To each endpoint of its tenant that wants such an event, and to the address that its call has named; part of the transaction that ends it. is_past: it
    has ended some time ago, so it is told to those endpoints alone that were there by then. is_copied: whether what it made is to be copied, which is
    written down too.
    """
    if is_copied:
        yield from request_copies(job)
    rows = yield Statement(
        "SELECT name, events, since_s FROM webhook_endpoints WHERE tenant = ? AND switched_off_s IS NULL", (job.tenant,)
    )
    for name, events, since_s in rows:
        if event_of(job.state) in events.split() and not (is_past and (job.ended_at_s or 0.0) < since_s):
            yield _delivery(job, name, "")
    named = yield Statement(
        "SELECT url FROM job_webhooks WHERE prompt_id = ? AND tenant = ?", (job.prompt_id, job.tenant)
    )
    for (url,) in named:
        yield _delivery(job, CALLS, url)


def _delivery(job: JobRow, endpoint: str, url: str) -> Statement:
    return Statement(
        "INSERT INTO webhook_deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0, '', NULL, '', ?, '', NULL) ON CONFLICT (id) DO NOTHING",
        (
            message_id(endpoint, job),
            endpoint,
            job.tenant,
            job.prompt_id,
            job.state,
            job.created_at_s,
            job.started_at_s,
            job.ended_at_s,
            job.created_at_s,  # at once: the end may be of ComfyUI's clock
            url,
        ),
    )


def message_id(endpoint: str, job: JobRow) -> str:
    """The same for every attempt, another one for each endpoint and each end of a job that is tried again."""
    text = f"{endpoint}/{job.tenant}/{job.prompt_id}/{job.version}/{job.ended_at_s}"
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"

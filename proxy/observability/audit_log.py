"""The audit trail: JSON lines, appended whole, rotated by size. Who submitted what and what became of it; never a credential or a prompt's text."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from policy.times import utc
from policy.violation import Reason
from proxy.http.request_record import Decision, RequestRecord
from proxy.jobs.registry import Job, Outcome
from proxy.observability.queued_writer import LINES_TOGETHER, QueuedWriter
from proxy.observability.rotating_file import RotatingFile, read_lines

REFUSED: Final = frozenset(
    {
        Reason.ROUTE_REFUSED,
        Reason.ADMINS_ONLY,
        Reason.SCOPE_MISSING,
        Reason.ORIGIN_FOREIGN,
        Reason.ROUTE_UNLISTED,
        Reason.FILE_TYPE_REFUSED,
        Reason.NAME_REFUSED,
        Reason.STORAGE_FULL,
        Reason.BODY_TOO_LARGE,
    }
)
"""Of other calls than submissions. Rates are not among them: a client that polls would fill the trail."""
MAX_OF_NOBODY: Final = 60
"""Lines a minute of callers that nobody knows."""
_log = logging.getLogger("comfygate")


class AuditTrail:
    """file: None keeps no trail. A trail that cannot be written is said in the log, once, and does not stop the gate."""

    def __init__(self, file: Path | None, max_bytes: int, keep: int) -> None:
        self._file = None if file is None else RotatingFile(file, max_bytes, keep)
        self._is_open = False
        self._has_failed = False
        self._lines: QueuedWriter | None = None
        self._minute = 0
        self._of_nobody = 0

    def open(self) -> None:
        """Raises OSError: an operator who asked for a trail is told at the start when there can be none."""
        if self._file is not None:
            self._file.open()
            self._is_open = True

    def use_thread(self) -> None:
        """From now on a thread of its own writes, so that no request waits for the disk."""
        if self._file is not None:
            self._lines = QueuedWriter(self._write, together=LINES_TOGETHER)

    @property
    def dropped(self) -> int:
        """Lines that were not written since the start, as the disk was too slow."""
        return 0 if self._lines is None else self._lines.dropped

    def close(self) -> None:
        self._is_open = False
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if self._file is not None:
            self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Appends one line."""
        if not self._is_open:
            return
        line = orjson.dumps(
            {"time": f"{utc(time.time())}+00:00", "event": event, **fields},
            option=orjson.OPT_APPEND_NEWLINE,
            default=str,
        )
        if self._lines is None:
            self._write(line)
        else:
            self._lines.put(line)

    def _write(self, lines: bytes) -> None:
        assert self._file is not None, "only an open trail is written"
        if self._file.has_room(len(lines)):
            self._append(self._file, lines)
            return
        for line in lines.splitlines(keepends=True):
            self._append(self._file, line)

    def _append(self, file: RotatingFile, lines: bytes) -> None:
        try:
            file.append(lines)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.error("the audit trail %s cannot be written: %s", file.path, error)
            self._has_failed = True

    def record(self, record: RequestRecord) -> None:
        """What of a request belongs in the trail: submissions, logins, refused routes."""
        if not self._is_open:
            return
        if record.submits:
            if record.principal is None and not self._has_room_for_nobody():
                return
            self.write("submission", decision=_decision(record), **_who(record), **record.notes)
        elif record.notes and "login" in record.notes:
            self.write("login", **_who(record), **record.notes)
        elif record.reason and record.reason in REFUSED:
            self.write("refused", **_who(record), **record.notes)

    def job_ended(self, job: Job) -> None:
        self.write(
            "job",
            prompt_id=job.prompt_id,
            tenant=job.tenant,
            subject=job.subject,
            workflow=job.workflow,
            outcome=job.outcome,
            gpu_seconds=round(job.gpu_s, 3),
            **({"failing_class": job.failing_class} if job.failing_class else {}),
            **({"reason": job.error} if job.error else {}),
            **({"attempts": len(job.attempts)} if len(job.attempts) > 1 else {}),
        )

    def job_tried_again(self, job: Job) -> None:
        """It waits again after ComfyUI had it."""
        reason = job.attempts[-1].get("reason", "") if job.attempts else ""
        self.write("job-attempt", prompt_id=job.prompt_id, tenant=job.tenant, attempt=len(job.attempts), reason=reason)

    def job_canceled(self, job: Job) -> None:
        """It waited, and ComfyUI never had it."""
        self.write(
            "job",
            prompt_id=job.prompt_id,
            tenant=job.tenant,
            subject=job.subject,
            workflow=job.workflow,
            outcome=Outcome.CANCELLED,
            gpu_seconds=0.0,
        )

    def _has_room_for_nobody(self) -> bool:
        # SECURITY: rotation keeps a bounded number of bytes, so a stranger who submits without a key, again and again, would push out what
        # the tenants did (test_audit_log.py::test_a_stranger_cannot_fill_the_trail). The log and the metrics have every one of them.
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._of_nobody = minute, 0
        self._of_nobody += 1
        return self._of_nobody <= MAX_OF_NOBODY


def read_trail(file: Path, keep: int) -> Iterator[dict[str, Any]]:
    """Lines of the trail, oldest first, rotated files included. A line that is not whole is passed over."""
    for line in read_lines(file, keep):
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


def is_since(entry: dict[str, Any], since_s: float) -> bool:
    try:
        return datetime.fromisoformat(str(entry.get("time"))).timestamp() >= since_s
    except ValueError:
        return False


def _decision(record: RequestRecord) -> Decision:
    if record.decision is not None:
        return record.decision
    return Decision.REFUSED if record.reason or record.status >= 400 else Decision.ACCEPTED


def _who(record: RequestRecord) -> dict[str, Any]:
    principal = record.principal
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "client": record.client,
        "tenant": principal.tenant if principal else None,
        "subject": principal.subject if principal else None,
        "route": record.route,
        "status": record.status,
    }
    if record.reason:
        fields["reason"] = record.reason
    return fields

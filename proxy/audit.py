"""The audit trail: JSON lines, appended whole, rotated by size. Who submitted what and what became of it; never a credential or a prompt's text."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from policy.violation import Reason
from proxy.exchange import Exchange
from proxy.ledger import Job

SUBMISSION: Final = "POST /prompt"
_REFUSED_ROUTES: Final = frozenset(
    {Reason.ROUTE_REFUSED, Reason.ADMINS_ONLY, Reason.SCOPE_MISSING, Reason.ORIGIN_FOREIGN, Reason.ROUTE_UNLISTED}
)
_log = logging.getLogger("comfygate")


class AuditTrail:
    """file: None keeps no trail. A trail that cannot be written is said in the log, once, and does not stop the gate."""

    def __init__(self, file: Path | None, max_bytes: int, keep: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._keep = keep
        self._handle: int | None = None
        self._size = 0
        self._has_failed = False

    def open(self) -> None:
        """Raises OSError: an operator who asked for a trail is told at the start when there can be none."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._handle).st_size
        if self._size and not self._ends_whole():
            self._size += os.write(self._handle, b"\n")  # the machine stopped in the middle of a line

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def write(self, event: str, **fields: Any) -> None:
        """Appends one line, in one write, so that a killed process leaves whole lines."""
        if self._handle is None:
            return
        line = orjson.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields},
            option=orjson.OPT_APPEND_NEWLINE,
            default=str,
        )
        try:
            if self._size and self._size + len(line) > self._max_bytes:
                self._rotate()
            os.write(self._handle, line)
            self._size += len(line)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.error("the audit trail %s cannot be written: %s", self._file, error)
            self._has_failed = True

    def exchange(self, exchange: Exchange) -> None:
        """What of an exchange belongs in the trail: submissions, logins, refused routes."""
        if self._handle is None:
            return
        if exchange.route == SUBMISSION:
            is_refused = bool(exchange.reason) or exchange.status >= 400
            self.write(
                "submission", decision="refused" if is_refused else "accepted", **_who(exchange), **exchange.notes
            )
        elif "login" in exchange.notes:
            self.write("login", **_who(exchange), **exchange.notes)
        elif exchange.reason in _REFUSED_ROUTES:
            self.write("refused", **_who(exchange))

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
        )

    def _ends_whole(self) -> bool:
        assert self._handle is not None, "open() made it"
        os.lseek(self._handle, -1, os.SEEK_END)
        return os.read(self._handle, 1) == b"\n"

    def _rotate(self) -> None:
        assert self._file is not None, "only an open trail is rotated"
        self.close()
        for number in range(self._keep - 1, 0, -1):
            older = _numbered(self._file, number)
            if older.exists():
                older.replace(_numbered(self._file, number + 1))
        self._file.replace(_numbered(self._file, 1))
        self.open()


def read_trail(file: Path, keep: int) -> Iterator[dict[str, Any]]:
    """Lines of the trail, oldest first, rotated files included. A line that is not whole is passed over."""
    for path in [*(_numbered(file, number) for number in range(keep, 0, -1)), file]:
        if not path.exists():
            continue
        with path.open("rb") as lines:
            for line in lines:
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


def cut_off(age_s: float) -> float:
    """Unix time that long ago."""
    return time.time() - age_s


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _who(exchange: Exchange) -> dict[str, Any]:
    principal = exchange.principal
    fields: dict[str, Any] = {
        "request_id": exchange.request_id,
        "client": exchange.client,
        "tenant": principal.tenant if principal else None,
        "subject": principal.subject if principal else None,
        "route": exchange.route,
        "status": exchange.status,
    }
    if exchange.reason:
        fields["reason"] = exchange.reason
    return fields
